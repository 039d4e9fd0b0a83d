//go:build race

package lpws

// raced says that the race detector slows the tests down.
const raced = true
