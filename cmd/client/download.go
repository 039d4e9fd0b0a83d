package main

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"unicode/utf8"

	lpfileshare "github.com/lpfileshare/lpfileshare/clients/go"
	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
	"github.com/lpfileshare/lpfileshare/internal/share"
)

type downloadCmd struct {
	Name         string `arg:"" optional:"" predictor:"file" help:"File: its short or whole name, as ls and watch print it, or its number in the last ls."`
	StoragePath  string `placeholder:"PATH" help:"LivePerson's storage path, instead of a name, with --conversation."`
	Conversation string `short:"c" placeholder:"NAME" help:"Name or id of the conversation of --storage-path. Default: the one that was created last."`
	Output       string `short:"o" placeholder:"FILE" predictor:"path" help:"File to write; - is standard output. Default: file-N with the number N of its message and the extension of its type, in the current directory, or the file's own name if LivePerson has it."`
	Force        bool   `short:"f" help:"Replace an existing file."`
}

func (cmd *downloadCmd) Run(ctx context.Context, a *app) error {
	switch {
	case (cmd.Name == "") == (cmd.StoragePath == ""):
		return &usageError{"give either the name of a file or --storage-path"}
	case cmd.Output == "-" && a.JSON:
		return &usageError{"--json and --output - exclude each other; both use standard output"}
	}
	ctx, cancel := a.limit(ctx, fileTimeout)
	defer cancel()
	client, c, err := a.client(ctx)
	if err != nil {
		return err
	}
	defer client.Close()
	if cmd.StoragePath == "" {
		if cmd.Name, err = a.file(ctx, client, c, cmd.Name); err != nil {
			return err
		}
	}
	o := lpfileshare.DownloadOptions{Name: cmd.Name, StoragePath: cmd.StoragePath}
	stat := &pb.StatFileRequest{Source: &pb.StatFileRequest_Name{Name: cmd.Name}}
	if cmd.StoragePath != "" {
		if o.Conversation, err = a.conversation(ctx, client, c, cmd.Conversation); err != nil {
			return err
		}
		stat.Source = &pb.StatFileRequest_Storage{Storage: &pb.StorageRef{Conversation: o.Conversation, StoragePath: cmd.StoragePath}}
	}
	output := cmd.Output
	if output == "" {
		r, err := client.Raw().Files.StatFile(ctx, stat)
		if err != nil {
			return err
		}
		output = fileName(r.GetFile())
	}
	return a.download(ctx, client, o, output, !cmd.Force)
}

// download downloads a file to a path, or to standard output for "-", and prints the path.
func (a *app) download(ctx context.Context, client *lpfileshare.Client, o lpfileshare.DownloadOptions, output string, noReplace bool) error {
	shown := a.newProgress()
	bar := shown.add(path.Base(filepath.ToSlash(output)))
	o.OnProgress = bar.update
	end := func(ok bool) {
		bar.end(ok)
		shown.wait()
	}
	if output == "-" {
		_, err := client.Download(ctx, o, a.stdout)
		end(err == nil)
		if err != nil {
			fmt.Fprintln(a.stderr, "lpfileshare: the file on standard output is incomplete")
		}
		return err
	}
	result, err := downloadFile(ctx, client, o, output, noReplace)
	end(err == nil)
	if errors.Is(err, fs.ErrExist) {
		return &adviceError{err, "Choose another name with -o, or replace the file with --force."}
	}
	if err != nil {
		return err
	}
	if a.JSON {
		return a.printDownloaded(result.Header.GetFile(), output, result)
	}
	_, err = fmt.Fprintln(a.stdout, output)
	return err
}

// printDownloaded prints a file as JSON, with its path on this machine, its size and its checksum.
func (a *app) printDownloaded(f *pb.File, path string, result *lpfileshare.DownloadResult) error {
	b, err := a.marshal(f)
	if err != nil {
		return err
	}
	fields := map[string]any{}
	if err := json.Unmarshal(b, &fields); err != nil {
		return err
	}
	fields["path"], fields["sizeBytes"], fields["sha256"] = path, result.Bytes, hex.EncodeToString(result.Checksums.GetSha256())
	return a.printJSON(fields)
}

// downloadFile downloads a file to a path. Its mode follows the umask, as with other programs.
func downloadFile(ctx context.Context, client *lpfileshare.Client, o lpfileshare.DownloadOptions, path string, noReplace bool) (*lpfileshare.DownloadResult, error) {
	result, err := client.DownloadFile(ctx, o, path, noReplace)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o666&^umask); err != nil {
		return nil, fmt.Errorf("the file was downloaded, but its mode could not be set: %w", err)
	}
	return result, nil
}

// fileName returns a local name for a file. The name comes from the network, so it is reduced to one path element that is safe and
// not hidden.
func fileName(f *pb.File) string {
	name := f.GetDisplayName()
	if name == "" && f.MessageSequence != nil { // LivePerson's messages have no names, and its storage paths are long
		name = "file-" + strconv.FormatInt(f.GetMessageSequence(), 10)
	}
	if name == "" {
		name = f.GetStoragePath()
	}
	name = strings.Trim(path.Base(strings.ReplaceAll(name, `\`, "/")), "/")
	name = strings.TrimLeft(strings.Map(func(r rune) rune {
		if controls(r) || strings.ContainsRune(`<>:"|?*/`, r) {
			return '_'
		}
		return r
	}, name), ".- ")
	if name == "" {
		name = "file"
	}
	if path.Ext(name) == "" {
		if row, ok := share.FileTypeByContractName(f.GetFileType().String()); ok {
			name += row.Extensions[0]
		}
	}
	return cutName(name)
}

// maxNameBytes is the length of a local name. File systems allow 255 bytes, some of which the number of watch --download needs.
const maxNameBytes = 200

// cutName cuts a name to maxNameBytes, between characters, and keeps its extension.
func cutName(name string) string {
	if len(name) <= maxNameBytes {
		return name
	}
	ext := path.Ext(name)
	if len(ext) > 10 {
		ext = ""
	}
	end := maxNameBytes - len(ext)
	for !utf8.RuneStart(name[end]) {
		end--
	}
	return name[:end] + ext
}
