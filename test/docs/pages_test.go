// Package docs_test checks the pages that people read: links, flags, commands, and the table of errors.
package docs_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const root = "../.."

// pages returns the Markdown files of the repository by path from its root.
func pages(t *testing.T) map[string]string {
	t.Helper()
	out, err := exec.Command("git", "-C", root, "ls-files", "--cached", "--others", "--exclude-standard", "*.md").Output()
	if err != nil {
		t.Fatalf("git ls-files: %v", err)
	}
	found := map[string]string{}
	for path := range strings.FieldsSeq(string(out)) {
		text, err := os.ReadFile(filepath.Join(root, path))
		if err != nil {
			t.Fatal(err)
		}
		found[path] = string(text)
	}
	if len(found) < 30 {
		t.Fatalf("%d pages found", len(found))
	}
	return found
}

// TestLinks checks that every relative link leads to a file, and its fragment to a heading.
func TestLinks(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)\s]+)\)`)
	all := pages(t)
	for page, text := range all {
		for _, m := range link.FindAllStringSubmatch(withoutCode(text), -1) {
			if strings.Contains(m[1], "://") || strings.HasPrefix(m[1], "mailto:") {
				continue
			}
			path, fragment, _ := strings.Cut(m[1], "#")
			target := page
			if path != "" {
				target = filepath.Join(filepath.Dir(page), path)
			}
			if _, err := os.Stat(filepath.Join(root, target)); err != nil {
				t.Errorf("%s: the link %s leads nowhere", page, m[1])
				continue
			}
			if other, ok := all[target]; ok && fragment != "" && !slices.Contains(anchors(other), fragment) {
				t.Errorf("%s: %s has no heading %q", page, target, fragment)
			}
		}
	}
}

// withoutCode returns a page without its fenced blocks, in which brackets mean other things.
func withoutCode(text string) string {
	return regexp.MustCompile("(?ms)^```.*?^```$").ReplaceAllString(text, "")
}

// anchors returns the fragments of a page's headings, as GitHub makes them.
func anchors(text string) (all []string) {
	drop := regexp.MustCompile(`[^\p{L}\p{N}\- _]`)
	for line := range strings.Lines(withoutCode(text)) {
		title, ok := strings.CutPrefix(strings.TrimLeft(line, "#"), " ")
		if !ok || !strings.HasPrefix(line, "#") {
			continue
		}
		all = append(all, strings.ReplaceAll(drop.ReplaceAllString(strings.ToLower(strings.TrimSpace(title)), ""), " ", "-"))
	}
	return all
}

// TestIndex checks that docs/README.md names every page of docs.
func TestIndex(t *testing.T) {
	all := pages(t)
	index := all["docs/README.md"]
	for page := range all {
		name, ok := strings.CutPrefix(page, "docs/")
		if ok && !strings.Contains(name, "/") && name != "README.md" && !strings.Contains(index, "("+name+")") {
			t.Errorf("docs/README.md does not name %s", name)
		}
	}
}

// TestFlags checks that every flag that the pages name is one of a program of this repository, or of a program named here.
func TestFlags(t *testing.T) {
	known := map[string]bool{}
	declared := regexp.MustCompile(`(?m)^\s+([A-Z]\w*)\s+\S.*?` + "`" + `([^` + "`" + `]*)` + "`")
	name := regexp.MustCompile(`\bname:"([^"]+)"`)
	for _, dir := range []string{"cmd/server", "cmd/client"} {
		files, err := filepath.Glob(filepath.Join(root, dir, "*.go"))
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: %v", dir, err)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range declared.FindAllStringSubmatch(string(text), -1) {
				flag := kebab(m[1])
				if n := name.FindStringSubmatch(m[2]); n != nil {
					flag = n[1]
				}
				known[flag] = true
			}
		}
	}
	if !known["max-file-bytes"] || !known["request-id-ttl"] || !known["tls-ca"] {
		t.Fatalf("the flags were not found: %v", known)
	}
	for _, f := range foreignFlags {
		known[f] = true
	}
	// The other pages name what was, and the tools of other languages.
	ours := regexp.MustCompile(`^(README|ARCHITECTURE|docs/[^/]+|clients/go/.*)\.md$`)
	flag := regexp.MustCompile(`(?:^|[\s` + "`" + `(])--([a-z][a-z0-9-]+)`)
	for page, text := range pages(t) {
		if !ours.MatchString(page) {
			continue
		}
		for _, m := range flag.FindAllStringSubmatch(text, -1) {
			if !known[m[1]] && !known[strings.TrimPrefix(m[1], "no-")] {
				t.Errorf("%s: no program has the flag --%s", page, m[1])
			}
		}
	}
}

// foreignFlags are those of other programs in the pages.
var foreignFlags = []string{
	"help", "version", "cacert",
	"ignore-missing",                                          // sha256sum
	"key", "tlog-upload", "insecure-ignore-tlog", "predicate", // cosign
	"now", "read-only", // systemctl, podman
	"insecure", "call", "disable-template-data", // ghz
}

// kebab returns the name that kong gives to a field: MaxFileBytes is max-file-bytes.
func kebab(field string) string {
	s := regexp.MustCompile(`([a-z0-9])([A-Z])`).ReplaceAllString(field, "$1-$2")
	return strings.ToLower(regexp.MustCompile(`([A-Z]+)([A-Z][a-z])`).ReplaceAllString(s, "$1-$2"))
}
