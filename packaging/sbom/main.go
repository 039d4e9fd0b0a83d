// Command sbom writes the modules of a program, and their licenses, in CycloneDX. It is the program cyclonedx-gomod without what differs
// between two runs or machines: a serial number, the time, and the digest of its own executable.
package main

import (
	"debug/buildinfo"
	"flag"
	"fmt"
	"os"
	"os/exec"

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

// download completes Go's cache of the modules in a program: a build does not need all of what the licenses are read from.
func download(program string) error {
	info, err := buildinfo.ReadFile(program)
	if err != nil {
		return err
	}
	cmd := exec.Command("go", "mod", "download")
	for _, m := range info.Deps {
		cmd.Args = append(cmd.Args, m.Path+"@"+m.Version)
	}
	cmd.Stderr = os.Stderr
	return cmd.Run()
}

func write(file, program, version string) error {
	if err := download(program); err != nil {
		return err
	}
	// The generator also asks for the main module, which no proxy has.
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
