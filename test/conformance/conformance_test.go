package main

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// minCases is the smallest number of cases that the suite may have.
const minCases = 200

// TestPage_IsOfAllCasesAndLanguages finds a page that was not written again after a case or a client was added.
func TestPage_IsOfAllCasesAndLanguages(t *testing.T) {
	cases, err := parseCases(casesText)
	if err != nil {
		t.Fatal(err)
	}
	if len(cases) < minCases {
		t.Errorf("there are %d cases, want at least %d", len(cases), minCases)
	}
	got, err := os.ReadFile("../../docs/conformance.md")
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != page(cases, languages) {
		t.Error("docs/conformance.md is not of the cases of cases.json and the languages of main.go: run make test-clients PAGE=-update")
	}
	clients, err := os.ReadDir("../../clients")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range clients {
		if c.IsDir() && !slices.Contains(languages, c.Name()) {
			t.Errorf("clients/%s is not in languages of main.go", c.Name())
		}
	}
	for _, l := range languages {
		if titles[l] == "" {
			t.Errorf("%s has no title in matrix.go", l)
		}
	}
}

// TestComparison_NamesExist compares the names in docs/clients.md with the sources of the clients.
func TestComparison_NamesExist(t *testing.T) {
	text, err := os.ReadFile("../../docs/clients.md")
	if err != nil {
		t.Fatal(err)
	}
	columns := []string{"go", "python", "typescript", "java", "rust"}
	words := map[string]map[string]bool{}
	for _, l := range columns {
		words[l] = clientWords(t, filepath.Join("../../clients", l))
	}
	quoted, rows := regexp.MustCompile("`[^`]+`"), 0
	for line := range strings.Lines(string(text)) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		if !strings.HasPrefix(line, "| ") || len(cells) != 1+len(columns) || strings.Contains(line, "---") || strings.Contains(line, "| Go |") {
			continue
		}
		rows++
		for i, l := range columns {
			if strings.TrimSpace(cells[i+1]) == "" {
				t.Errorf("%s: nothing for %s", strings.TrimSpace(cells[0]), titles[l])
			}
			for _, name := range quoted.FindAllString(cells[i+1], -1) {
				for _, w := range word.FindAllString(name, -1) {
					if !words[l][w] {
						t.Errorf("%s: clients/%s has no %s", strings.TrimSpace(cells[0]), l, name)
					}
				}
			}
		}
	}
	if rows < 40 {
		t.Errorf("docs/clients.md has %d rows, want at least 40", rows)
	}
}

var word = regexp.MustCompile(`\w+`)

// clientWords returns the words of the sources of a client, without tests, generated code and what its tools install.
func clientWords(t *testing.T, dir string) map[string]bool {
	t.Helper()
	words := map[string]bool{}
	err := filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if e.IsDir() {
			if path != dir && (e.Name()[0] == '.' || slices.Contains([]string{"node_modules", "target", "dist", "gen", "generated", "v1", "test", "tests"}, e.Name())) {
				return filepath.SkipDir
			}
			return nil
		}
		if slices.Contains([]string{".go", ".py", ".ts", ".java", ".rs"}, filepath.Ext(path)) {
			text, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			for _, w := range word.FindAllString(string(text), -1) {
				words[w] = true
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return words
}

func TestMatch_Conditions(t *testing.T) {
	got := map[string]any{"n": 3.0, "text": "a refusal", "list": []any{1.0, 2.0}, "none": nil}
	for _, want := range []map[string]any{
		{"n": 3.0}, {"n": map[string]any{"$min": 3.0, "$max": 3.0}}, {"text": map[string]any{"$has": "fusal"}},
		{"list": map[string]any{"$len": 2.0, "$some": 2.0}}, {"none": map[string]any{"$empty": true}}, {"absent": map[string]any{"$empty": true}},
		{"n": map[string]any{"$any": []any{4.0, 3.0}}}, {"n": map[string]any{"$not": 4.0}}, {"list": map[string]any{"$all": map[string]any{"$max": 2.0}}},
	} {
		if diff := match("", want, any(got)); diff != "" {
			t.Errorf("%v: %s", want, diff)
		}
	}
	for _, want := range []map[string]any{
		{"n": 4.0}, {"n": map[string]any{"$min": 4.0}}, {"n": map[string]any{"$max": 2.0}}, {"n": map[string]any{"$min": 1.0, "$max": 2.0}},
		{"text": map[string]any{"$has": "x"}}, {"list": map[string]any{"$len": 3.0}}, {"list": []any{1.0}}, {"n": map[string]any{"$empty": true}},
		{"none": map[string]any{"$set": true}}, {"absent": "x"}, {"n": map[string]any{"$any": []any{4.0}}}, {"n": map[string]any{"$typo": 1.0}},
		{"list": map[string]any{"$all": 1.0}}, {"list": map[string]any{"$some": 5.0}}, {"n": map[string]any{"deeper": 1.0}},
	} {
		if match("", want, any(got)) == "" {
			t.Errorf("%v matches", want)
		}
	}
}

func TestExtract_Examples(t *testing.T) {
	page := "# X\n\n## Examples\n\nText.\n"
	for _, name := range exampleNames {
		page += "\n### " + name + "\n\nText.\n\n```go\npackage " + name + "\n```\n"
	}
	programs, err := extract(page+"\n## After\n\n```go\nnot this\n```\n", "go")
	if err != nil || len(programs) != len(exampleNames) || programs["Watch"] != "package Watch\n" {
		t.Errorf("%q, %v", programs, err)
	}
	for _, bad := range []string{"", strings.Replace(page, "### List", "### Lists", 1), strings.Replace(page, "```go", "```", 1), page + "\n```go\nmore\n```\n"} {
		if _, err := extract(bad, "go"); err == nil {
			t.Errorf("no error for %.80q", bad)
		}
	}
}

// TestVersions_AreThoseOfTheManifests compares clients/versions.env with what each client's own tools read.
func TestVersions_AreThoseOfTheManifests(t *testing.T) {
	const clients = "../../clients"
	text, err := os.ReadFile(filepath.Join(clients, "versions.env"))
	if err != nil {
		t.Fatal(err)
	}
	manifests := regexp.MustCompile(`^(pyproject\.toml|.*requirements.*\.txt|generate(\.py|\.sh)?|package\.json|pom\.xml|Cargo\.toml|rust-toolchain\.toml)$`)
	for line := range strings.Lines(string(text)) {
		name, value, ok := strings.Cut(strings.TrimSpace(line), "=")
		if strings.HasPrefix(name, "#") || name == "" {
			continue
		}
		language := strings.ToLower(strings.SplitN(name, "_", 2)[0])
		if _, known := fences[language]; !ok || !known {
			t.Errorf("%q is not LANGUAGE_NAME=VALUE", line)
			continue
		}
		found := false
		err := filepath.WalkDir(filepath.Join(clients, language), func(path string, d os.DirEntry, err error) error {
			if err != nil || d.IsDir() && slices.Contains([]string{"node_modules", "target", ".venv", "dist"}, d.Name()) {
				return errorOr(err, filepath.SkipDir)
			}
			if !d.IsDir() && manifests.MatchString(d.Name()) {
				content, err := os.ReadFile(path)
				found = found || strings.Contains(string(content), value)
				return err
			}
			return nil
		})
		if err != nil || !found {
			t.Errorf("%s: no manifest of clients/%s has %s (%v)", name, language, value, err)
		}
	}
}

func errorOr(err, otherwise error) error {
	if err != nil {
		return err
	}
	return otherwise
}
