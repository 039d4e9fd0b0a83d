package main

import (
	"log/slog"
	"slices"
	"strings"

	"github.com/agnivade/levenshtein"
)

// envPrefix begins the name of each environment variable that sets a flag.
const envPrefix = "LPFILESHARE"

// clientEnvs are the environment variables of the client, which may run in the same environment.
var clientEnvs = []string{
	"LPFILESHARE_ACCOUNT", "LPFILESHARE_ADDRESS", "LPFILESHARE_AGENT_TOKEN", "LPFILESHARE_AS", "LPFILESHARE_BEARER_TOKEN_FILE", "LPFILESHARE_CLIENT_CERT", "LPFILESHARE_CLIENT_KEY",
	"LPFILESHARE_EXTERNAL_CONSUMER_ID", "LPFILESHARE_JSON", "LPFILESHARE_PASSWORD", "LPFILESHARE_PLAINTEXT", "LPFILESHARE_PREVIEWS",
	"LPFILESHARE_PROFILE", "LPFILESHARE_QUIET",
	"LPFILESHARE_SESSION_FILE", "LPFILESHARE_TIMEOUT", "LPFILESHARE_TLS_CA", "LPFILESHARE_TOKEN", "LPFILESHARE_TOKEN_FILE",
}

// warnUnknown logs the variables of the environment that are named like those of flags but set none, with the most similar name. known
// are the names that set flags. Values are not logged.
func warnUnknown(environ, known []string, log *slog.Logger) {
	for _, entry := range environ {
		name, _, _ := strings.Cut(entry, "=")
		if !strings.HasPrefix(name, envPrefix+"_") || slices.Contains(known, name) || slices.Contains(clientEnvs, name) {
			continue
		}
		nearest := slices.MinFunc(known, func(a, b string) int {
			return levenshtein.ComputeDistance(name, a) - levenshtein.ComputeDistance(name, b)
		})
		log.Warn("an environment variable sets no flag and is ignored; correct its name or remove it", "variable", name, "nearest", nearest)
	}
}
