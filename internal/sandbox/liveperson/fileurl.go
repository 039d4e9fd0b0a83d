package liveperson

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/google/uuid"

	"github.com/lpfileshare/lpfileshare/internal/sandbox/journal"
	"github.com/lpfileshare/lpfileshare/internal/sandbox/jsonhttp"
)

// fileTypes are the valid file types: the union of those in LivePerson's documentation and clients.
var fileTypes = []string{"JPG", "JPEG", "PNG", "GIF", "PDF", "TXT", "DOCX", "XLSX", "PPTX", "IMG"}

const (
	// storeAccount is the account in the store that holds all files.
	storeAccount = "AUTH_async-images"
	// maxPreview is the size in bytes that a preview must stay below. LivePerson documents 30 KB without saying of which encoding.
	maxPreview = 40 << 10
)

// objectFolder returns the path prefix of an account's files in the store.
func (a *account) objectFolder() string { return "/v1/" + storeAccount + "/" + a.id + "/" }

// fileName returns the last element of the path of a file of this account.
func (a *account) fileName(path string) (name string, ok bool) {
	name, ok = strings.CutPrefix(path, a.objectFolder())
	return name, ok && name != "" && name != "." && name != ".." && !strings.ContainsAny(name, "/\\?#%")
}

// urlBody is the answer to a request for a signed URL.
type urlBody struct {
	RelativePath string            `json:"relativePath"`
	QueryParams  map[string]string `json:"queryParams"`
}

// signedURL issues a URL for one method and path.
func (k *caller) signedURL(method, path string) Reply {
	until := k.s.now().Add(k.s.opts.URLLifetime)
	sig, expires := k.s.opts.Store.Sign(method, path, until)
	k.s.opts.Journal.Signed(journal.SignedURL{Account: k.account.id, Method: method, Path: path, Owner: k.who.id, Expires: until})
	return Reply{Code: 200, Type: typeURL, Body: urlBody{path, map[string]string{
		"temp_url_sig": sig, "temp_url_expires": expires,
	}}}
}

// uploadURL answers ms.GenerateURLForUploadFile.
func (k *caller) uploadURL(c *call) Reply {
	var body struct {
		Size jsonText `json:"fileSize"`
		Type string   `json:"fileType"`
	}
	if err := c.decode(&body); err != nil {
		return Refuse(CodeInvalid, "the body has the wrong shape")
	}
	size, ok := body.Size.number()
	switch {
	case !k.account.fileSharing():
		return Refuse(CodeSharingOff, "file sharing is off: site property %s", fileSharingProperty)
	case body.Size == "" || body.Type == "":
		return Refuse(CodeMissing, "fileSize and fileType are required")
	case !ok || size <= 0:
		return Refuse(CodeInvalid, "fileSize is not a number of bytes")
	case size > k.s.opts.MaxFileSize:
		return Refuse(CodeFileTooLarge, "the maximum file size is %d bytes", k.s.opts.MaxFileSize)
	case !slices.Contains(fileTypes, body.Type):
		return Refuse(CodeInvalid, "fileType must be one of %s", strings.Join(fileTypes, " "))
	}
	now := k.s.now()
	path := fmt.Sprintf("%s%s_uuid_%s_%s-%03d.%s", k.account.objectFolder(), k.who.id, uuid.NewString(),
		now.Format("02-01-2006_15-04-05"), now.Nanosecond()/1e6, body.Type)
	k.account.granted[path] = k.who.id
	return k.signedURL(http.MethodPut, path)
}

// downloadURL answers ms.GenerateURLForDownloadFile. LivePerson does not document who may get such a URL. Here it is the person who
// uploaded the file and the participants of conversations in which it was published.
func (k *caller) downloadURL(c *call) Reply {
	var body struct {
		Path string `json:"relativePath"`
	}
	if err := c.decode(&body); err != nil {
		return Refuse(CodeInvalid, "the body has the wrong shape")
	}
	if body.Path == "" {
		return Refuse(CodeMissing, "relativePath is missing")
	}
	if _, ok := k.account.fileName(body.Path); !ok || !k.maySee(body.Path) {
		return Refuse(CodeNoFile, "no such file")
	}
	return k.signedURL(http.MethodGet, body.Path)
}

// maySee reports whether the caller may download the file at path.
func (k *caller) maySee(path string) bool {
	if k.s.opts.SignAnyPath || k.account.granted[path] == k.who.id {
		return true
	}
	return slices.ContainsFunc(k.account.files[path], func(e *event) bool {
		return e.dialog.conv.hasParticipant(k.who) && (k.who.agent || e.public())
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

// checkFile validates the message of a hosted/file event.
func (k *caller) checkFile(c *call, message json.RawMessage) (*file, *Reply) {
	refused := func(errorCode int, format string, args ...any) (*file, *Reply) {
		a := Refuse(errorCode, format, args...)
		return nil, &a
	}
	var f file
	if !isObject(message) || json.Unmarshal(message, &f) != nil {
		return refused(CodeInvalid, "message must be an object with the strings relativePath, fileType and caption")
	}
	f.path, f.preview = f.Path, len(f.Preview)
	var text string
	if json.Unmarshal(f.Preview, &text) == nil {
		f.preview = len(text)
	}
	_, ok := k.account.fileName(f.path)
	switch {
	case f.path == "" || f.Type == "":
		return refused(CodeMissing, "relativePath and fileType are required")
	case !ok && strings.HasPrefix(f.path, "/v1/"+storeAccount+"/") && !strings.HasPrefix(f.path, k.account.objectFolder()):
		return refused(CodeForeignFile, "the file belongs to another account")
	case !ok:
		return refused(CodeInvalid, "relativePath is not one that was issued")
	case !slices.Contains(fileTypes, f.Type):
		return refused(CodeInvalid, "fileType must be one of %s", strings.Join(fileTypes, " "))
	case f.preview >= maxPreview:
		return refused(CodePreviewTooLarge, "the preview must be smaller than %d bytes", maxPreview)
	case k.account.granted[f.path] != k.who.id:
		return refused(CodeNotYours, "no upload URL for this path was issued to you")
	}
	switch {
	case c.storedErr != nil:
		return refused(CodeStorage, "the store does not answer")
	case !c.stored:
		return refused(CodeNotStored, "nothing was uploaded to this path")
	}
	return &f, nil
}

// withoutNulls returns a file's event without the members of its message that are null. Clients may send null for missing members,
// but notifications have no such members.
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
	outer["message"] = jsonhttp.Encode(members)
	return jsonhttp.Encode(outer)
}

// checkStored sets c.stored if c publishes a file whose path was issued to the caller. It holds no lock while it asks the store,
// which may take time.
func (k *caller) checkStored(c *call) {
	if c.Type != "ms.PublishEvent" {
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
		c.stored, c.storedErr = k.s.opts.Store.Exists(k.s.ctx, path)
	}
}
