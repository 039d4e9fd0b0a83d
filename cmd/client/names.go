package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	lpfileshare "github.com/lpfileshare/lpfileshare/clients/go"
	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
)

// fileArg is a file that a command is about.
type fileArg struct {
	Name string `arg:"" predictor:"file" help:"File: its short or whole name, as ls and watch print it, or its number in the last ls."`
}

// shortName returns the short name of a file. It depends only on the resource name, so it is the same for all participants.
func shortName(name string) string {
	hash := sha256.Sum256([]byte(name))
	return "f" + hex.EncodeToString(hash[:4])
}

var shortNamePattern = regexp.MustCompile(`^f[0-9a-f]{8}$`)

// file returns the resource name of a file for an argument: a resource name, a number of the last listing, or a short name. A short
// name that the last listing does not have is looked up in the caller's conversations.
func (a *app) file(ctx context.Context, client *lpfileshare.Client, c *connection, arg string) (string, error) {
	var listed []string
	if l := c.session.Listed; l != nil && l.Address == c.address {
		listed = l.Names
	}
	if n, err := strconv.Atoi(arg); err == nil {
		if n < 1 || n > len(listed) {
			return "", &usageError{fmt.Sprintf("the last listing has no file %d, only %d; list the files again with lpfileshare ls", n, len(listed))}
		}
		return listed[n-1], nil
	}
	if !shortNamePattern.MatchString(arg) {
		if !strings.HasPrefix(arg, "accounts/") {
			return "", &usageError{fmt.Sprintf("%q is neither the name of a file nor its number; lpfileshare ls prints both", arg)}
		}
		return arg, nil
	}
	if name, err := onlyNamed(arg, listed); name != "" || err != nil {
		return name, err
	}
	parents := []string{c.parent() + "/conversations/-"}
	if stored := c.storedConversation(); stored != "" {
		parents = []string{stored, parents[0]}
	}
	for _, parent := range parents {
		name, err := findShort(ctx, client, parent, arg)
		if name != "" || err != nil {
			return name, err
		}
	}
	return "", &adviceError{fmt.Errorf("no file of your conversations has the short name %s", arg), "List them with lpfileshare ls --all."}
}

// findShort returns the name of the file with a short name, newest first. Empty: there is none.
func findShort(ctx context.Context, client *lpfileshare.Client, parent, short string) (string, error) {
	var names []string
	for f, err := range client.Files(ctx, lpfileshare.FilesOptions{Parent: parent, NewestFirst: true}).All() {
		switch lpfileshare.ErrorReason(err) {
		case pb.ErrorReason_ERROR_REASON_METHOD_NOT_IMPLEMENTED, pb.ErrorReason_ERROR_REASON_CONVERSATION_NOT_FOUND:
			return "", nil
		}
		if err != nil {
			return "", err
		}
		names = append(names, f.GetName())
	}
	return onlyNamed(short, names)
}

// onlyNamed returns the only one of these names that has the short name. Empty: none.
func onlyNamed(short string, names []string) (found string, err error) {
	for _, name := range names {
		if shortName(name) != short {
			continue
		}
		if found != "" && found != name {
			return "", &adviceError{errors.New("several files have the short name " + short), "Use the whole name: lpfileshare ls --long."}
		}
		found = name
	}
	return found, nil
}
