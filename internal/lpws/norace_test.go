//go:build !race

package lpws

const raced = false
