package wire

import (
	"embed"
	"fmt"
	"path"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

//go:embed schemas/*.json
var files embed.FS

const (
	// base is the schemas' base address for the compiler, so that a reference such as "defs.json#/..." resolves.
	base = "wire:///"
	defs = "defs.json"
)

// compile returns the schemas by name.
func compile() (map[string]*jsonschema.Schema, error) {
	entries, err := files.ReadDir("schemas")
	if err != nil {
		return nil, fmt.Errorf("wire: %w", err)
	}
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	for _, e := range entries {
		doc, err := document(e.Name())
		if err != nil {
			return nil, err
		}
		if err := c.AddResource(base+e.Name(), doc); err != nil {
			return nil, fmt.Errorf("wire: %w", err)
		}
	}
	schemas := make(map[string]*jsonschema.Schema, len(entries))
	for _, e := range entries {
		if e.Name() == defs {
			continue
		}
		s, err := c.Compile(base + e.Name())
		if err != nil {
			return nil, fmt.Errorf("wire: %w", err)
		}
		schemas[strings.TrimSuffix(e.Name(), ".json")] = s
	}
	return schemas, nil
}

// document parses one schema file.
func document(name string) (any, error) {
	f, err := files.Open(path.Join("schemas", name))
	if err != nil {
		return nil, fmt.Errorf("wire: %w", err)
	}
	defer func() { _ = f.Close() }()
	doc, err := jsonschema.UnmarshalJSON(f)
	if err != nil {
		return nil, fmt.Errorf("wire: schema %s: %w", name, err)
	}
	return doc, nil
}
