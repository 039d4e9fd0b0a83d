// Package jsonhttp reads and writes JSON in HTTP requests and answers.
package jsonhttp

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
)

// MaxBody is the largest request body, in bytes, that Read accepts.
const MaxBody = 64 << 10

// Encode returns v as JSON. It panics if v cannot be encoded: the sandbox encodes only its own types and JSON that it has parsed.
func Encode(v any) []byte {
	data, err := json.Marshal(v)
	if err != nil {
		panic("sandbox: cannot encode JSON: " + err.Error())
	}
	return data
}

// Respond answers with v as JSON.
func Respond(w http.ResponseWriter, status int, v any) { Write(w, status, Encode(v)) }

// Write answers with data, which is JSON.
func Write(w http.ResponseWriter, status int, data []byte) {
	w.Header().Set("Content-Type", "application/json;charset=UTF-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write(data)
}

// Fail answers with an error.
func Fail(w http.ResponseWriter, status int, message string) {
	_, data := Failure(status, message)
	Write(w, status, data)
}

// Failure returns status and the body of an error answer. LivePerson documents no body; node-agent-sdk reads error.internalCode.
func Failure(status int, message string) (int, []byte) {
	return status, Encode(map[string]any{"error": map[string]any{"internalCode": status, "message": message}})
}

// Read decodes the JSON body of r into v. An empty body leaves v unchanged.
func Read(r *http.Request, v any) error {
	data, err := io.ReadAll(io.LimitReader(r.Body, MaxBody+1))
	if err != nil {
		return err
	}
	if len(data) > MaxBody {
		return fmt.Errorf("the body is larger than %d bytes", MaxBody)
	}
	if len(bytes.TrimSpace(data)) == 0 {
		return nil
	}
	if err := json.Unmarshal(data, v); err != nil {
		return errors.New("the body is not valid JSON of the expected shape")
	}
	return nil
}
