// Package buildinfo reports which version of lpfileshare a program was built from.
package buildinfo

import "runtime/debug"

// Set by the linker: see LDFLAGS in the Makefile.
var version, revision string

// Version returns the version that the Makefile gave the linker. Without it, it returns the version that Go recorded, or "devel" if
// there is none.
func Version() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" && info.Main.Version != "(devel)" {
		return info.Main.Version
	}
	return "devel"
}

// Revision returns the commit that the program was built from, as 40 hexadecimal digits; "" if it is not known.
func Revision() string {
	if revision != "" {
		return revision
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				return s.Value
			}
		}
	}
	return ""
}
