// Command sbom writes the modules of a program, and their licenses, in CycloneDX. It is the program cyclonedx-gomod without what differs
// between two runs or machines: a serial number, the time, and the digest of its own executable.
package main

import (
	"flag"
	"fmt"
	"os"

	"github.com/CycloneDX/cyclonedx-go"
	"github.com/CycloneDX/cyclonedx-gomod/pkg/generate/bin"
	"github.com/CycloneDX/cyclonedx-gomod/pkg/licensedetect/local"
	"github.com/rs/zerolog"
)

func main() {
	version := flag.String("version", "", "version of the program")
	out := flag.String("out", "", "file to write")
	flag.Parse()
	if err := write(*out, flag.Arg(0), *version); err != nil {
		fmt.Fprintln(os.Stderr, "sbom:", err)
		os.Exit(1)
	}
}

func write(file, program, version string) error {
	// The build has downloaded all modules. Only the main module is missing, which no proxy must be asked for.
	if err := os.Setenv("GOPROXY", "off"); err != nil {
		return err
	}
	generator, err := bin.NewGenerator(program, bin.WithVersionOverride(version), bin.WithLicenseDetector(local.NewDetector(zerolog.Nop())), bin.WithLogger(zerolog.Nop()))
	if err != nil {
		return err
	}
	bom, err := generator.Generate()
	if err != nil {
		return err
	}
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := cyclonedx.NewBOMEncoder(f, cyclonedx.BOMFileFormatJSON).SetPretty(true).Encode(bom); err != nil {
		return err
	}
	return f.Close()
}
