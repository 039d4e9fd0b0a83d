package abuse

import (
	"bytes"
	"context"
	"io"
	"os"
	"os/exec"

	lpfileshare "github.com/lpfileshare/lpfileshare/clients/go"
	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
)

// attackers are the attacks that run in a process of their own. In the process of the honest caller, hundreds of goroutines of the
// attacker would be in the way of the honest caller before the server saw either.
var attackers = map[string]func(c [2]*lpfileshare.Client, object string){
	"downloads": func(c [2]*lpfileshare.Client, file string) {
		atOnce(context.Background(), 250, func(ctx context.Context, i int) {
			_, _ = c[i%2].Download(ctx, lpfileshare.DownloadOptions{Name: file, RetryFor: -1}, io.Discard)
		})
	},
	"uploads": func(c [2]*lpfileshare.Client, conversation string) {
		data := text(3_000_000)
		atOnce(context.Background(), 64, func(ctx context.Context, i int) {
			_, _ = c[i%2].Upload(ctx, lpfileshare.UploadOptions{
				Conversation: conversation, DisplayName: "a.txt", FileType: pb.FileType_FILE_TYPE_TXT, RetryFor: -1,
			}, bytes.NewReader(data))
		})
	},
}

// attackerVariable is set for a process that attacks.
const attackerVariable = "LPFILESHARE_ABUSE_ATTACKER"

// attackElsewhere has a process of its own attack with a consumer's token until ctx ends.
func (s *server) attackElsewhere(ctx context.Context, attack, token, object string) {
	cmd := exec.CommandContext(ctx, os.Args[0], s.Addr, token, object)
	cmd.Env = append(os.Environ(), attackerVariable+"="+attack)
	stdin, err := cmd.StdinPipe() // the attacker ends when it is closed, with this process at the latest
	if err != nil {
		s.t.Error(err)
		return
	}
	defer stdin.Close()
	out, err := cmd.CombinedOutput()
	if ctx.Err() == nil {
		s.t.Errorf("the attacker ended by itself: %v\n%s", err, out)
	}
}

// attackHere is the process that attackElsewhere starts. It attacks until it is killed.
func attackHere() error {
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	var clients [2]*lpfileshare.Client
	for i := range clients {
		c, err := lpfileshare.Dial(os.Args[1])
		if err != nil {
			return err
		}
		clients[i] = as(c, os.Args[2])
	}
	attackers[os.Getenv(attackerVariable)](clients, os.Args[3])
	return nil
}
