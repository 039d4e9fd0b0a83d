package sandbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
)

// fileTypes are what a file may be called: the union of what LivePerson's documents and clients say.
var fileTypes = []string{"JPG", "JPEG", "PNG", "GIF", "PDF", "TXT", "DOCX", "XLSX", "PPTX", "IMG"}

const (
	// maxPreview is what a preview's text must stay under. The documents say 30 KB without saying of what, so there is room.
	maxPreview = 40 << 10
	// swiftTimeout is how long another Swift may take to say whether an object is there.
	swiftTimeout = 5 * time.Second
)

// objectFolder is where an account's files are.
func (a *account) objectFolder() string { return "/v1/" + swiftAccount + "/" + a.id + "/" }

// fileName returns the last part of the path of a file of this account.
func (a *account) fileName(path string) (name string, ok bool) {
	name, ok = strings.CutPrefix(path, a.objectFolder())
	return name, ok && name != "" && name != "." && name != ".." && !strings.ContainsAny(name, "/\\?#%")
}

// urlBody is the answer to a request for a signed URL.
type urlBody struct {
	RelativePath string            `json:"relativePath"`
	QueryParams  map[string]string `json:"queryParams"`
}

// signedURL gives out a URL for one method and path.
func (k *caller) signedURL(method, path string) reply {
	sig, expires := k.s.store.sign(method, path, k.s.now().Add(k.s.opts.URLLifetime))
	k.s.journal.urlSigned(k.account.id, method, path, k.who.id)
	return reply{code: 200, typ: typeURL, body: urlBody{path, map[string]string{
		"temp_url_sig": sig, "temp_url_expires": expires,
	}}}
}

// uploadURL answers ms.GenerateURLForUploadFile.
func (k *caller) uploadURL(c *call) reply {
	var body struct {
		Size jsonText `json:"fileSize"`
		Type string   `json:"fileType"`
	}
	if err := c.decode(&body); err != nil {
		return refuse(errInvalid, "the body has the wrong shape")
	}
	size, ok := body.Size.number()
	switch {
	case !k.account.fileSharing():
		return refuse(errSharingOff, "file sharing is switched off: site property %s", fileSharingProperty)
	case body.Size == "" || body.Type == "":
		return refuse(errMissing, "fileSize and fileType are wanted")
	case !ok || size <= 0:
		return refuse(errInvalid, "fileSize is not a number of bytes")
	case size > k.s.opts.MaxFileSize:
		return refuse(errFileTooLarge, "a file may have %d bytes", k.s.opts.MaxFileSize)
	case !slices.Contains(fileTypes, body.Type):
		return refuse(errInvalid, "fileType must be one of %s", strings.Join(fileTypes, " "))
	}
	now := k.s.now()
	path := fmt.Sprintf("%s%s_uuid_%s_%s-%03d.%s", k.account.objectFolder(), k.who.id, uuid.NewString(),
		now.Format("02-01-2006_15-04-05"), now.Nanosecond()/1e6, body.Type)
	k.account.granted[path] = k.who.id
	return k.signedURL(http.MethodPut, path)
}

// downloadURL answers ms.GenerateURLForDownloadFile. LivePerson does not say whom it gives such a URL to; here it is whoever
// takes part in a conversation in which the file was published, or was given the URL to upload it.
func (k *caller) downloadURL(c *call) reply {
	var body struct {
		Path string `json:"relativePath"`
	}
	if err := c.decode(&body); err != nil {
		return refuse(errInvalid, "the body has the wrong shape")
	}
	if body.Path == "" {
		return refuse(errMissing, "relativePath is missing")
	}
	if _, ok := k.account.fileName(body.Path); !ok || !k.maySee(body.Path) {
		return refuse(errNoFile, "no such file")
	}
	return k.signedURL(http.MethodGet, body.Path)
}

func (k *caller) maySee(path string) bool {
	if k.s.opts.SignAnyPath || k.account.granted[path] == k.who.id {
		return true
	}
	return slices.ContainsFunc(k.account.files[path], func(e *event) bool {
		return e.dialog.conv.takesPart(k.who) && (k.who.agent || e.public())
	})
}

// A file is the message of a hosted/file event.
type file struct {
	Caption string          `json:"caption"`
	Path    string          `json:"relativePath"`
	Type    string          `json:"fileType"`
	Preview json.RawMessage `json:"preview"`

	path    string
	preview int // length of the preview's text
}

// checkFile says whether the message of a hosted/file event can be published.
func (k *caller) checkFile(c *call, message json.RawMessage) (*file, *reply) {
	refused := func(errorCode int, format string, args ...any) (*file, *reply) {
		a := refuse(errorCode, format, args...)
		return nil, &a
	}
	var f file
	if !isObject(message) || json.Unmarshal(message, &f) != nil {
		return refused(errInvalid, "message must be an object with the strings relativePath, fileType and caption")
	}
	f.path, f.preview = f.Path, len(f.Preview)
	var text string
	if json.Unmarshal(f.Preview, &text) == nil {
		f.preview = len(text)
	}
	_, ok := k.account.fileName(f.path)
	switch {
	case f.path == "" || f.Type == "":
		return refused(errMissing, "relativePath and fileType are wanted")
	case !ok && strings.HasPrefix(f.path, "/v1/"+swiftAccount+"/") && !strings.HasPrefix(f.path, k.account.objectFolder()):
		return refused(errForeignFile, "the file is another account's")
	case !ok:
		return refused(errInvalid, "relativePath is not as it was given")
	case !slices.Contains(fileTypes, f.Type):
		return refused(errInvalid, "fileType must be one of %s", strings.Join(fileTypes, " "))
	case f.preview >= maxPreview:
		return refused(errPreviewTooBig, "a preview must be smaller")
	case k.account.granted[f.path] != k.who.id:
		return refused(errNotYours, "no upload URL for this path was given to you")
	}
	if k.s.swift == nil {
		_, _, c.stored = k.s.store.stat(f.path)
	}
	switch {
	case c.storedErr != nil:
		return refused(errStorage, "the storage does not answer")
	case !c.stored:
		return refused(errNotStored, "nothing was uploaded to this path")
	}
	return &f, nil
}

// withoutNulls is a file's event without the members of its message that are null, if there are any: a client may write null for
// what it leaves out, but what is told of a file has no such members.
func withoutNulls(event, message json.RawMessage) json.RawMessage {
	var members, outer map[string]json.RawMessage
	if json.Unmarshal(message, &members) != nil || json.Unmarshal(event, &outer) != nil {
		return event
	}
	before := len(members)
	maps.DeleteFunc(members, func(_ string, v json.RawMessage) bool { return given(v) == nil })
	if len(members) == before {
		return event
	}
	outer["message"] = frame(members)
	return frame(outer)
}

// askStore asks another Swift, if there is one, whether the file of a publish is there: under no lock, as it takes time. It
// asks only for paths that were given out here.
func (k *caller) askStore(c *call) {
	if k.s.swift == nil || c.typ != "ms.PublishEvent" {
		return
	}
	var body struct {
		Event struct {
			ContentType string `json:"contentType"`
			Message     struct {
				Path string `json:"relativePath"`
			} `json:"message"`
		} `json:"event"`
	}
	if c.decode(&body) != nil || body.Event.ContentType != "hosted/file" {
		return
	}
	path := body.Event.Message.Path
	k.s.mu.Lock()
	mine := k.who != nil && k.account.granted[path] == k.who.id
	k.s.mu.Unlock()
	if mine {
		c.stored, c.storedErr = k.s.storedElsewhere(path)
	}
}

// storedElsewhere asks the other Swift for the head of an object.
func (s *Sandbox) storedElsewhere(path string) (bool, error) {
	sig, expires := s.store.sign(http.MethodHead, path, s.now().Add(s.opts.URLLifetime))
	u := *s.swift
	u.Path, u.RawQuery = path, "temp_url_sig="+sig+"&temp_url_expires="+expires
	req, err := http.NewRequestWithContext(s.ctx, http.MethodHead, u.String(), nil)
	if err != nil {
		return false, errors.New("no request")
	}
	resp, err := s.client.Do(req)
	if err != nil {
		return false, errors.New("no answer") // the cause would quote the signed URL
	}
	_ = resp.Body.Close()
	switch {
	case resp.StatusCode == http.StatusOK:
		return true, nil
	case resp.StatusCode == http.StatusNotFound:
		return false, nil
	default:
		return false, errors.New(resp.Status)
	}
}
