package docs_test

import (
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// command is how a line of a block begins if it is for a shell.
var command = regexp.MustCompile(`^(make|bin/|lpfileshare|go (test|run|install)|curl|grpcurl|openssl|printf|export|source|kill|mkdir|[A-Z_]+=\S+ \w|protoc|buf|python3?|sha256sum|npm|cargo|mvn) ?`)

// TestCommands checks that commands.txt says of every block of commands in the pages where it is run, or why it is not.
func TestCommands(t *testing.T) {
	text, err := os.ReadFile("commands.txt")
	if err != nil {
		t.Fatal(err)
	}
	run := map[string]string{}
	for line := range strings.Lines(string(text)) {
		line = strings.TrimRight(line, "\n")
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		page, rest, _ := strings.Cut(line, " | ")
		i := strings.LastIndex(rest, " | ")
		if i < 0 {
			t.Fatalf("commands.txt: %q has no three parts", line)
		}
		run[page+": "+rest[:i]] = rest[i+3:]
	}
	missing := maps.Clone(run)
	for page, text := range pages(t) {
		if strings.HasPrefix(page, "docs/adr/") || page == "CHANGELOG.md" {
			continue
		}
		for _, block := range commandBlocks(text) {
			key := page + ": " + block
			how, ok := run[key]
			delete(missing, key)
			if !ok {
				t.Errorf("commands.txt does not say whether this block is run: %s", key)
			} else if file, _, _ := strings.Cut(how, " "); !strings.HasPrefix(how, "not run: ") {
				checkRunner(t, file, page)
			}
		}
	}
	for _, key := range slices.Sorted(maps.Keys(missing)) {
		t.Errorf("commands.txt has a block that no page has: %s", key)
	}
}

// checkRunner checks that a file that is to run the blocks of a page exists and reads the page.
func checkRunner(t *testing.T, file, page string) {
	text, err := os.ReadFile(filepath.Join(root, file))
	if err != nil {
		t.Errorf("commands.txt: %v", err)
	} else if file != ".ci/run" && !strings.Contains(string(text), filepath.Base(page)) {
		t.Errorf("%s does not read %s", file, page)
	}
}

// program matches the fence of a program. Those of the clients' READMEs are run by test/conformance.
var program = regexp.MustCompile("^```(go|java|python|rust|ts)$")

// commandBlocks returns the first line of each block, fenced or indented, that has commands.
func commandBlocks(text string) (first []string) {
	lines := strings.Split(text, "\n")
	for i := 0; i < len(lines); {
		begin, end := i+1, i+1
		var next int
		switch fenced := strings.HasPrefix(strings.TrimSpace(lines[i]), "```"); {
		case fenced:
			for end < len(lines) && strings.TrimSpace(lines[end]) != "```" {
				end++
			}
			next = end + 1
		case strings.HasPrefix(lines[i], "    ") && (i == 0 || strings.TrimSpace(lines[i-1]) == ""):
			begin = i
			for end < len(lines) && strings.HasPrefix(lines[end], "    ") {
				end++
			}
			next = end
		default:
			i++
			continue
		}
		var code []string
		for _, line := range lines[begin:end] {
			if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
				code = append(code, line)
			}
		}
		if !program.MatchString(lines[i]) && slices.ContainsFunc(code, command.MatchString) {
			first = append(first, code[0])
		}
		i = next
	}
	return first
}
