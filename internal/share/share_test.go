package share

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

func TestCheckStoragePath(t *testing.T) {
	const account = "12345678"
	good := []string{
		"/v1/AUTH_async-images/12345678/8a66a22f-81ee-4447-b92f-78e9c3ecc819.PNG",
		"/v1/AUTH_async-images/12345678/8ccc728c_uuid_4d91eedb_17-04-2018_09-37-15-082.JPG",
		"/v1/AUTH_other/12345678/a/b.GIF",
	}
	bad := []string{
		"", "1234.JPG", "v1/AUTH_async-images/12345678/a", "//v1/AUTH_async-images/12345678/a", "/v1/AUTH_async-images/12345678",
		"/v1/AUTH_async-images/12345678/", "/v1/AUTH_async-images//a", "/v1/AUTH_async-images/87654321/a",
		"/v1/AUTH_async-images/12345678/../87654321/a", "/v1/AUTH_async-images/12345678/./a", "/v1/AUTH_async-images/12345678/%2e%2e/a",
		"/v1/AUTH_async-images/12345678/a?temp_url_sig=1", "/v1/AUTH_async-images/12345678/a#b", `/v1/AUTH_async-images/12345678/a\b`,
		"https://example.com/v1/AUTH_async-images/12345678/a", "/v1/AUTH_async-images/12345678/a:80", "/v1/AUTH_x@example.com/12345678/a",
		"/v1/AUTH_async-images/12345678/a b", "/v1/AUTH_async-images/12345678/a\n", "/v1/AUTH_async-images/12345678/é",
		"/v2/AUTH_async-images/12345678/a", "/v1/AUTH_async-images/12345678/" + strings.Repeat("a", 1024),
	}
	for _, path := range good {
		if err := CheckStoragePath(account, path); err != nil {
			t.Errorf("%q: %v", path, err)
		}
	}
	for _, path := range bad {
		if err := CheckStoragePath(account, path); !Is(err, StoragePathInvalid) {
			t.Errorf("%q gave %v, want STORAGE_PATH_INVALID", path, err)
		}
	}
}

func TestSecrets(t *testing.T) {
	const secret = "open-sesame"
	values := []any{
		Credential{Scheme: ConsumerToken, Account: "1", Secret: secret},
		TempURL{Path: "/v1/AUTH_a/1/o", Sig: secret, Expires: "1"},
		SignIn{Token: secret, RenewalSecret: secret},
		AgentGrant{Account: "1", UserID: "2", UserPID: "3", Bearer: secret, Cookie: secret, CSRF: secret},
		BotKeys{Username: "bot", AppKey: secret, Secret: secret, AccessToken: secret, AccessTokenSecret: secret},
	}
	for _, v := range values {
		var log bytes.Buffer
		slog.New(slog.NewTextHandler(&log, nil)).Info("m", "v", v, "p", &v)
		for how, text := range map[string]string{
			"%v": fmt.Sprintf("%v", v), "%+v": fmt.Sprintf("%+v", v), "%#v": fmt.Sprintf("%#v", v), "%s": fmt.Sprintf("%s", v),
			"in a slice": fmt.Sprint([]any{v}), "slog": log.String(),
		} {
			if strings.Contains(text, secret) {
				t.Errorf("%T shows its secret with %s: %s", v, how, text)
			}
		}
	}
}

func TestParseAgentToken(t *testing.T) {
	grant := AgentGrant{Account: "1", UserID: "2", UserPID: "3", Bearer: "b", Expires: 4, Cookie: "c", CSRF: "d", Lifetime: 5}
	if got, err := ParseAgentToken(grant.Token()); err != nil || got != grant {
		t.Errorf("%#v, %v", got, err)
	}
	for _, token := range []string{"", "sesame", "e30", AgentGrant{Account: "1", UserID: "2", Bearer: "b"}.Token(), grant.Token() + "="} {
		if _, err := ParseAgentToken(token); !Is(err, TokenInvalid) {
			t.Errorf("%q gave %v, want TOKEN_INVALID", token, err)
		}
	}
}

func TestKindOf(t *testing.T) {
	inner := Errorf(FileTooLarge, "too large", errors.New("cause"))
	wrapped := fmt.Errorf("storing: %w", inner)
	if KindOf(wrapped) != FileTooLarge || !Is(wrapped, FileEmpty, FileTooLarge) || Is(wrapped, FileEmpty) {
		t.Error("the kind is not found in a wrapped error")
	}
	if KindOf(errors.New("x")) != "" || Is(nil, FileEmpty) || Is(errors.New("x"), "") {
		t.Error("a kind of an error without one")
	}
	if got := inner.Error(); got != "FILE_TOO_LARGE: too large: cause" {
		t.Errorf("for the log: %q", got)
	}
}
