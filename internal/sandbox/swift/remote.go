package swift

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"time"
)

// remoteTimeout is how long another Swift may take to report whether an object exists.
const remoteTimeout = 5 * time.Second

// A Remote is a Swift elsewhere whose URLs are signed here.
type Remote struct {
	Signer
	base   *url.URL
	client *http.Client
	now    func() time.Time
}

// maxIdle is how many connections are kept for further requests. Package http would keep two, and dial for each request beyond.
const maxIdle = 64

// NewRemote returns the Swift at base, http://HOST:PORT or https://HOST:PORT.
func NewRemote(base string, signer Signer, now func() time.Time) (*Remote, error) {
	u, err := url.Parse(base)
	if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
		return nil, errors.New("SwiftURL must be http://host:port or https://host:port")
	}
	return &Remote{Signer: signer, base: u, now: now, client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: maxIdle}, Timeout: remoteTimeout}}, nil
}

// Host returns host and port.
func (r *Remote) Host() string { return r.base.Host }

// Close closes idle connections.
func (r *Remote) Close() { r.client.CloseIdleConnections() }

// Exists asks the Swift whether an object is stored at path.
func (r *Remote) Exists(ctx context.Context, path string) (bool, error) {
	sig, expires := r.Sign(http.MethodHead, path, r.now().Add(time.Minute))
	u := *r.base
	u.Path, u.RawQuery = path, "temp_url_sig="+sig+"&temp_url_expires="+expires
	req, err := http.NewRequestWithContext(ctx, http.MethodHead, u.String(), nil)
	if err != nil {
		return false, errors.New("no request")
	}
	resp, err := r.client.Do(req)
	if err != nil {
		return false, errors.New("no answer") // the cause would quote the signed URL
	}
	_ = resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusOK:
		return true, nil
	case http.StatusNotFound:
		return false, nil
	default:
		return false, errors.New(resp.Status)
	}
}
