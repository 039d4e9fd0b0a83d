// Package cmdline has what the command lines of both programs share.
package cmdline

import (
	"fmt"
	"reflect"

	"github.com/alecthomas/kong"
)

// RawStrings returns the option that keeps the bytes of strings as they are on the command line. kong's own decoder replaces bytes that
// are not UTF-8, so that a file with such a name cannot be named. A list of strings also needs the tag sep:"none".
func RawStrings() kong.Option {
	return kong.KindMapper(reflect.String, kong.MapperFunc(func(ctx *kong.DecodeContext, target reflect.Value) error {
		token, err := ctx.Scan.PopValue("string")
		if err != nil {
			return err
		}
		text, ok := token.Value.(string)
		if !ok { // from a resolver
			text = fmt.Sprint(token.Value)
		}
		target.SetString(text)
		return nil
	}))
}
