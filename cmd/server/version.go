package main

import "runtime/debug"

// version is the module's, as Go stamps it into the binary; "devel" for a build without one.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "" || info.Main.Version == "(devel)" {
		return "devel"
	}
	return info.Main.Version
}
