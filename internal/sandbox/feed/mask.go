package feed

import (
	"regexp"
	"strings"
)

// Masked stands for a secret.
const Masked = "[masked]"

// secrets are the forms in which a token, a signature or a password appears in a frame, a body or a path. Each pattern has two groups:
// what stays before the secret, and the secret. Quotes and white
// space of JSON in a string of JSON are escaped, once for each string around it. A text without any of the signs, which
// are lower-case, does not match; most texts have none, and patterns are slow.
var secrets = []struct {
	signs   []string
	pattern *regexp.Regexp
}{
	// A JWT, wherever it is. A cut text may end in it.
	{[]string{"eyj"}, regexp.MustCompile(`()(\beyJ[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*){0,4})`)},
	// A member of JSON.
	{
		[]string{"temp_url_sig", "jwt", "token", "bearer", "secret", "password", "csrf", "sessionid", "appkey", "authorization", "x-lp-on-behalf"},
		regexp.MustCompile(`((?i:\\*"(?:temp_url_sig|jwt|token|[a-z_]*access_?token[a-z_]*|id_token|bearer|[a-z_]*secret|password|csrf|sessionid|appkey|authorization|x-lp-on-behalf)\\*"(?:\s|\\+[nrt])*:(?:\s|\\+[nrt])*\\*"))((?:[^"\\]|\\+[^"\\])+)`),
	},
	// A parameter of a URL or of a form.
	{
		[]string{"temp_url_sig=", "secret=", "token=", "password=", "code="},
		regexp.MustCompile(`((?i:\b(?:temp_url_sig|client_secret|token|access_token|password|code)=))([^&"\\\s]+)`),
	},
	// An agent's socket: its path has the token. That of a consumer is a JWT.
	{[]string{"/messaging/brand/"}, regexp.MustCompile(`(/messaging/brand/)([^/?"\\\s]+)`)},
}

// Mask returns text with its secrets replaced. All that the feed sends passes through it.
func Mask(text string) string {
	lower := strings.ToLower(text)
	for _, s := range secrets {
		for _, sign := range s.signs {
			if strings.Contains(lower, sign) {
				text = s.pattern.ReplaceAllString(text, "${1}"+Masked)
				break
			}
		}
	}
	return text
}
