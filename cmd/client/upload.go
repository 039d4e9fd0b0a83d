package main

import (
	"bufio"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/google/uuid"

	lpfileshare "github.com/lpfileshare/lpfileshare/clients/go"
	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
	"github.com/lpfileshare/lpfileshare/internal/share"
)

// maxPreviewFileBytes is the largest preview file: a data URI can have 30 KiB, and base64 encodes three bytes as four characters.
const maxPreviewFileBytes = 30 << 10 * 3 / 4

type uploadCmd struct {
	Files        []string `arg:"" name:"file" help:"Files to send; - is standard input."`
	Conversation string   `short:"c" placeholder:"NAME" help:"Name or id of the conversation. Default: the one that was created last."`
	Dialog       string   `placeholder:"ID" help:"Dialog of the conversation. Default: the main dialog."`
	Caption      string   `help:"Text that is shown with each file."`
	Preview      string   `default:"auto" placeholder:"WHAT" help:"Small image shown before a file is opened: auto (the server generates one from an image), none, or a FILE (auto)."`
	Type         fileType `placeholder:"TYPE" help:"Type of the files: ${file_types}. Default: detected."`
	Fit          bool     `help:"Make images that are too large fit: upright, with lower quality, then with fewer pixels."`
	Strip        bool     `help:"Remove metadata (EXIF with the location, XMP, comments) and trailing bytes from images."`
	Name         string   `placeholder:"NAME" help:"Display name, with one file. Default: the name of the file."`
	RequestID    string   `placeholder:"UUID" help:"Repeat an upload whose result is not known, with one file: it is never published twice."`
	StoreOnly    bool     `xor:"effect" help:"Only store the files. Publish them later: lpfileshare publish REQUEST-ID."`
	ValidateOnly bool     `xor:"effect" help:"Only check what can be checked without the bytes. Nothing is stored or published."`
}

// fileType is the name of a file type. Empty: to be detected.
type fileType string

// UnmarshalText parses the name of a type.
func (t *fileType) UnmarshalText(text []byte) error {
	*t = fileType(strings.ToLower(string(text)))
	if slices.ContainsFunc(share.FileTypes(), func(row share.FileTypeInfo) bool { return row.LowerName() == string(*t) }) {
		return nil
	}
	return errors.New("must be one of " + fileTypeNames())
}

// fileTypeNames lists the types that the flag accepts.
func fileTypeNames() string {
	var names []string
	for _, row := range share.FileTypes() {
		names = append(names, row.LowerName())
	}
	return strings.Join(names, ", ")
}

func (cmd *uploadCmd) Run(ctx context.Context, a *app) error {
	if len(cmd.Files) > 1 && (cmd.RequestID != "" || cmd.Name != "") {
		return &usageError{"--request-id and --name require a single file"}
	}
	if first := slices.Index(cmd.Files, "-"); first >= 0 && slices.Contains(cmd.Files[first+1:], "-") {
		return &usageError{"standard input can be sent only once"}
	}
	if cmd.RequestID != "" && uuid.Validate(cmd.RequestID) != nil {
		return &usageError{"--request-id must be a UUID"}
	}
	preview, err := cmd.preview()
	if err != nil {
		return err
	}
	connect, cancel := a.limit(ctx, callTimeout)
	defer cancel()
	client, c, err := a.client(connect)
	if err != nil {
		return err
	}
	defer client.Close()
	conversation, err := c.conversation(cmd.Conversation)
	if err != nil {
		return err
	}
	failed := false
	for _, file := range cmd.Files {
		if err := cmd.send(ctx, a, client, conversation, file, preview); err != nil {
			if ctx.Err() != nil {
				return err
			}
			a.printError(ctx, err)
			failed = true
		} else {
			a.uploaded++
		}
	}
	if failed {
		return errReported
	}
	return nil
}

// preview returns the preview of --preview. Nil: the server generates one.
func (cmd *uploadCmd) preview() (*pb.Preview, error) {
	switch cmd.Preview {
	case "auto":
		return nil, nil
	case "none", "":
		return &pb.Preview{}, nil
	}
	f, err := os.Open(cmd.Preview)
	if err != nil {
		return nil, fmt.Errorf("preview: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxPreviewFileBytes+1))
	if err != nil {
		return nil, fmt.Errorf("preview: %w", err)
	}
	mime := http.DetectContentType(b)
	if len(b) > maxPreviewFileBytes {
		return nil, &adviceError{fmt.Errorf("the preview %s is larger than %d bytes", cmd.Preview, maxPreviewFileBytes),
			"Use a smaller one, or let the server generate one: --preview auto."}
	}
	if !slices.Contains([]string{"image/jpeg", "image/png", "image/gif"}, mime) {
		return nil, fmt.Errorf("the preview %s is not a JPEG, PNG or GIF image", cmd.Preview)
	}
	uri := "data:" + mime + ";base64," + base64.StdEncoding.EncodeToString(b)
	return &pb.Preview{Source: &pb.Preview_DataUri{DataUri: uri}}, nil
}

func (cmd *uploadCmd) send(ctx context.Context, a *app, client *lpfileshare.Client, conversation, path string, preview *pb.Preview) error {
	ctx, cancel := a.limit(ctx, fileTimeout)
	defer cancel()
	source, name := a.stdin, "standard input"
	o := lpfileshare.UploadOptions{
		Conversation: conversation, DialogID: cmd.Dialog, DisplayName: cmd.Name, Caption: cmd.Caption, Preview: preview,
		RequestID: cmd.RequestID, ValidateOnly: cmd.ValidateOnly,
	}
	if path != "-" {
		f, err := openFile(path)
		if err != nil {
			return fmt.Errorf("upload: %w", err)
		}
		defer f.Close()
		source, name = f, filepath.Base(path)
		if o.DisplayName == "" {
			o.DisplayName = name
		}
	}
	o.FileType = pb.FileType(pb.FileType_value["FILE_TYPE_"+strings.ToUpper(string(cmd.Type))])
	if o.FileType == pb.FileType_FILE_TYPE_UNSPECIFIED {
		var head []byte
		var err error
		if head, source, err = peek(source); err != nil {
			return fmt.Errorf("upload: %w", err)
		}
		o.FileType = lpfileshare.DetectFileType(o.DisplayName, head)
		if o.FileType == pb.FileType_FILE_TYPE_UNSPECIFIED {
			return &adviceError{fmt.Errorf("upload %s: the file type cannot be detected from the bytes or the name", name),
				"Set it with --type, or give a name with an extension with --name."}
		}
	}
	if o.Preview == nil {
		o.Preview = autoPreview(o.FileType)
	}
	if (cmd.Fit || cmd.Strip) && isImage(o.FileType) { // other files are not changed
		o.Image = &pb.ImageOptions{Fit: cmd.Fit, StripMetadata: cmd.Strip}
	}
	if cmd.StoreOnly {
		o.PublishMode = pb.PublishMode_PUBLISH_MODE_STORE_ONLY
	}
	bar := a.newBar(name)
	o.OnProgress = bar.update
	resp, err := client.Upload(ctx, o, source)
	bar.end(err == nil)
	if err != nil {
		return err
	}
	if cmd.ValidateOnly {
		return a.print(resp, "%s would be accepted", plain(name))
	}
	if change := imageChange(resp); change != "" && !a.JSON {
		fmt.Fprintf(a.stderr, "%s: %s\n", plain(name), change)
	}
	if cmd.StoreOnly && !a.JSON {
		fmt.Fprintf(a.stderr, "%s: stored, not published; publish it: lpfileshare publish %s\n", plain(name), plain(resp.GetRequestId()))
	}
	return a.print(resp, "%s", plain(resp.GetFile().GetName()))
}

// imageChange describes in one line what was done to an image. Empty: nothing.
func imageChange(resp *pb.UploadResponse) string {
	c := resp.GetImage()
	if c == nil {
		return ""
	}
	var did []string
	say := func(format string, args ...any) { did = append(did, fmt.Sprintf(format, args...)) }
	if t := c.GetInputFileType(); t != pb.FileType_FILE_TYPE_UNSPECIFIED {
		say("%s became %s", typeName(&pb.File{FileType: t}), typeName(resp.GetFile()))
	}
	if c.GetRotated() {
		say("rotated upright")
	}
	if c.GetScaled() {
		say("scaled from %d x %d to %d x %d pixels", c.GetInputWidth(), c.GetInputHeight(), c.GetWidth(), c.GetHeight())
	}
	if q := c.GetJpegQuality(); q > 0 {
		say("quality %d", q)
	}
	var kinds []string
	for _, m := range c.GetRemovedMetadata() {
		kinds = append(kinds, metadataName(m))
	}
	if len(kinds) > 0 {
		say("without %s", strings.Join(kinds, ", "))
	}
	if n := c.GetTrailingBytesRemoved(); n > 0 {
		say("without %d trailing bytes", n)
	}
	return fmt.Sprintf("%d bytes became %d: %s", c.GetInputSizeBytes(), resp.GetFile().GetStoredSizeBytes(), strings.Join(did, "; "))
}

// metadataName is the name of a kind of metadata. A kind that this program does not know has the name of the contract.
func metadataName(m pb.ImageMetadata) string {
	switch m {
	case pb.ImageMetadata_IMAGE_METADATA_COMMENT:
		return "comments"
	case pb.ImageMetadata_IMAGE_METADATA_COLOR_PROFILE:
		return "colour profile"
	case pb.ImageMetadata_IMAGE_METADATA_OTHER:
		return "other data"
	}
	return strings.TrimPrefix(m.String(), "IMAGE_METADATA_") // EXIF, XMP, IPTC
}

// autoPreview requests a preview of a type that the server can generate one of. Nil: none.
func autoPreview(t pb.FileType) *pb.Preview {
	if !isImage(t) {
		return nil
	}
	return &pb.Preview{Source: &pb.Preview_Generate{Generate: true}}
}

func isImage(t pb.FileType) bool {
	row, _ := share.FileTypeByContractName(t.String())
	return row.Image
}

// openFile opens a file, and rejects a directory.
func openFile(path string) (*os.File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	if info, err := f.Stat(); err == nil && info.IsDir() {
		f.Close()
		return nil, fmt.Errorf("%s is a directory, not a file", path)
	}
	return f, nil
}

// peek returns the first bytes of r, and a reader of all of it: r itself if it can seek.
func peek(r io.Reader) (head []byte, whole io.Reader, err error) {
	const enough = 512
	if s, ok := r.(io.ReadSeeker); ok {
		if start, err := s.Seek(0, io.SeekCurrent); err == nil { // else a pipe
			head, err := io.ReadAll(io.LimitReader(s, enough))
			if err == nil {
				_, err = s.Seek(start, io.SeekStart)
			}
			return head, r, err
		}
	}
	buffered := bufio.NewReaderSize(r, 4096)
	head, err = buffered.Peek(enough)
	if err == io.EOF {
		err = nil
	}
	return head, buffered, err
}
