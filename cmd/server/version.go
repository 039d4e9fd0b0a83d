package main

import "runtime/debug"

// version returns the version of the module that Go recorded in the binary; "devel" if it recorded none.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "" || info.Main.Version == "(devel)" {
		return "devel"
	}
	return info.Main.Version
}
