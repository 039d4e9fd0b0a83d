package feed

import "regexp"

// Masked stands for a secret.
const Masked = "[masked]"

// secrets are the forms in which a token, a signature or a password appears in a frame, a body or a path. Each pattern has two groups:
// what stays before the secret, and the secret. The quotes of JSON in a string of JSON are escaped.
var secrets = []*regexp.Regexp{
	// A JWT, wherever it is. A cut text may end in it.
	regexp.MustCompile(`()(\beyJ[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*){0,4})`),
	// A member of JSON.
	regexp.MustCompile(`((?i:\\?"(?:temp_url_sig|jwt|token|[a-z_]*access_?token[a-z_]*|id_token|bearer|[a-z_]*secret|password|csrf|sessionid|appkey|authorization|x-lp-on-behalf)\\?":\s*\\?"))([^"\\]+)`),
	// A parameter of a URL or of a form.
	regexp.MustCompile(`((?i:\b(?:temp_url_sig|client_secret|token|access_token|password|code)=))([^&"\\\s]+)`),
	// An agent's socket: its path has the token. That of a consumer is a JWT.
	regexp.MustCompile(`(/messaging/brand/)([^/?"\\\s]+)`),
}

// Mask returns text with its secrets replaced. All that the feed sends passes through it.
func Mask(text string) string {
	for _, s := range secrets {
		text = s.ReplaceAllString(text, "${1}"+Masked)
	}
	return text
}
