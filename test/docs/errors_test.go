package docs_test

import (
	"flag"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	lpfileshare "github.com/lpfileshare/lpfileshare/clients/go"
	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
)

var update = flag.Bool("update", false, "write docs/errors.md")

const errorsHead = `<!-- Generated from proto/lpfileshare/v1/error_reason.proto and clients/go/errors.go by make generate. Do not edit. -->

# Errors

Every error of the server has one reason: ` + "`google.rpc.ErrorInfo`" + ` of domain ` + "`lpfileshare`" + ` in the details of the status. **Repeat a call if and only if
the status carries RetryInfo**, after at least its delay; an upload under the same request id. Errors without an ErrorInfo come from gRPC
itself, from a proxy or from a broken connection: [proto/README.md](../proto/README.md#when-to-repeat-a-call) has the whole rule.

Reasons are added, never renamed. The advice is what ` + "`clients/go`" + ` and the command line print.

| reason | code | repeat | meaning | advice |
| --- | --- | --- | --- | --- |
`

// TestErrors checks that docs/errors.md is what the contract and the Go client say. With -update it writes the page.
func TestErrors(t *testing.T) {
	const page = "../../docs/errors.md"
	want := errorsHead + strings.Join(errorRows(t), "\n") + "\n"
	if *update {
		if err := os.WriteFile(page, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	got, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want {
		t.Error("docs/errors.md is stale; run make generate and commit it")
	}
}

// reasonComment is how the comment of a reason begins: "NOT_FOUND, no RetryInfo. ".
var reasonComment = regexp.MustCompile(`^([A-Z_]+), (with|no) RetryInfo\. `)

// errorRows returns a row for each reason, in the order of their names.
func errorRows(t *testing.T) (rows []string) {
	comments := enumComments(t, "../../proto/lpfileshare/v1/error_reason.proto")
	for number := range len(pb.ErrorReason_name) + 100 { // numbers of reasons that were never released are left out
		name, ok := pb.ErrorReason_name[int32(number)]
		if !ok || number == 0 {
			continue
		}
		comment := comments[name]
		begin := reasonComment.FindStringSubmatch(comment)
		if begin == nil {
			t.Fatalf("the comment of %s does not begin with its code and whether it has RetryInfo: %q", name, comment)
		}
		repeat := "no"
		if begin[2] == "with" {
			repeat = "yes"
		}
		e := &lpfileshare.Error{Reason: pb.ErrorReason(number)}
		rows = append(rows, fmt.Sprintf("| `%s` | `%s` | %s | %s | %s |", strings.TrimPrefix(name, "ERROR_REASON_"), begin[1], repeat,
			strings.TrimPrefix(comment, begin[0]), e.Advice()))
	}
	if len(rows) != len(pb.ErrorReason_name)-1 {
		t.Fatalf("%d rows for %d reasons", len(rows), len(pb.ErrorReason_name)-1)
	}
	return rows
}

// enumComments returns the comment before each value of the enums in a file, on one line.
func enumComments(t *testing.T, file string) map[string]string {
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	value := regexp.MustCompile(`^(\w+) = \d+;$`)
	comments := map[string]string{}
	var comment []string
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		if words, ok := strings.CutPrefix(line, "//"); ok {
			comment = append(comment, strings.TrimSpace(words))
			continue
		}
		if m := value.FindStringSubmatch(line); m != nil {
			comments[m[1]] = strings.Join(comment, " ")
		}
		comment = nil
	}
	return comments
}
