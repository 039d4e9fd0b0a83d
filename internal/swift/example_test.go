package swift_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"

	"github.com/lpfileshare/lpfileshare/internal/share"
	"github.com/lpfileshare/lpfileshare/internal/swift"
)

// Put uploads a file by a URL that LivePerson has signed. The store in this example accepts everything.
func ExampleClient_Put() {
	store := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		data, _ := io.ReadAll(r.Body)
		fmt.Println("the store received:", r.Method, r.URL.Path, string(data))
		w.Header().Set("Etag", "5d41402abc4b2a76b9719d911017c592")
		w.WriteHeader(http.StatusCreated)
	}))
	defer store.Close()

	client := swift.New(swift.Config{
		BaseURL: func(context.Context, string) (string, error) { return store.URL, nil },
	})
	defer client.Close()

	url := share.TempURL{Path: "/v1/AUTH_async-images/12345678/a.TXT", Sig: "0e31cf038d91ff7ace0d52f0427b549d0f4b99f5", Expires: "1700000060"}
	body := io.NopCloser(strings.NewReader("hello"))
	stored, err := client.Put(context.Background(), "12345678", url, 5, "text/plain", body)
	if err != nil {
		fmt.Println("not stored:", err)
		return
	}
	fmt.Println("stored:", stored.Size, stored.ETag)
	// Output:
	// the store received: PUT /v1/AUTH_async-images/12345678/a.TXT hello
	// stored: 5 5d41402abc4b2a76b9719d911017c592
}
