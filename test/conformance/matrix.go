package main

import (
	"fmt"
	"strings"
)

// titles are the columns of the matrix.
var titles = map[string]string{
	"go": "Go", "python": "Python", "python-async": "Python, asyncio", "typescript": "TypeScript", "java": "Java", "rust": "Rust",
}

// page is docs/conformance.md, for languages that pass every case.
func page(cases []*Case, languages []string) string {
	var b strings.Builder
	fmt.Fprintf(&b, `# Conformance of the clients

The clients of this repository run the same %d cases against the same server, its sandbox and a fault proxy. This page is written by
the runner, and only if every case passes: see [test/conformance](../test/conformance/README.md).

    make test-clients

`, len(cases))
	for _, group := range groups(cases) {
		fmt.Fprintf(&b, "## %s%s\n\n| case |", strings.ToUpper(group[:1]), group[1:])
		for _, l := range languages {
			fmt.Fprintf(&b, " %s |", titles[l])
		}
		b.WriteString("\n| --- |" + strings.Repeat(" --- |", len(languages)) + "\n")
		for _, c := range cases {
			if c.Group() == group {
				fmt.Fprintf(&b, "| %s |%s\n", strings.TrimPrefix(c.Name, group+"/"), strings.Repeat(" pass |", len(languages)))
			}
		}
		b.WriteString("\n")
	}
	return strings.TrimSuffix(b.String(), "\n")
}
