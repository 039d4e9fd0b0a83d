package standin

import (
	"flag"
	"fmt"
	"os"
	"time"

	"github.com/lpfileshare/lpfileshare/internal/sandbox"
)

// delayed are the requests that LivePerson's stand-in answers late.
var delayed = []string{"ms.GenerateURLForUploadFile", "ms.GenerateURLForDownloadFile", "ms.PublishEvent"}

// LivePerson serves the sandbox, whose files are in another store.
func LivePerson(args []string) error {
	set := flag.NewFlagSet("liveperson", flag.ContinueOnError)
	store := set.String("store", "", "URL of the store")
	key := set.String("key", Key, "key that signs the store's URLs")
	delay := set.Duration("delay", 0, "delay of each answer")
	if err := set.Parse(args); err != nil {
		return err
	}
	s, err := sandbox.Start(sandbox.Options{SwiftURL: *store, SwiftKey: *key, AutoAssign: true, IdleTimeout: time.Hour})
	if err != nil {
		return err
	}
	if *delay > 0 {
		for _, on := range delayed {
			s.Inject(sandbox.Fault{On: on, AnswerDelay: *delay})
		}
	}
	fmt.Fprintf(os.Stderr, "ready addr=%s\n", s.URL()[len("http://"):])
	select {}
}
