package standin

import (
	"flag"
	"net/http"
	"net/http/httputil"
	"net/url"
	"sync"
)

// pool lends the buffers of a ReverseProxy.
type pool struct{ sync.Pool }

func (p *pool) Get() []byte  { return *p.Pool.Get().(*[]byte) }
func (p *pool) Put(b []byte) { p.Pool.Put(&b) }

// Proxy serves Go's ReverseProxy before a store, with buffers of 128 KiB and kept connections.
func Proxy(args []string) error {
	set := flag.NewFlagSet("proxy", flag.ContinueOnError)
	store := set.String("store", "", "URL of the store")
	if err := set.Parse(args); err != nil {
		return err
	}
	target, err := url.Parse(*store)
	if err != nil {
		return err
	}
	const size = 128 << 10
	return serve(&httputil.ReverseProxy{
		Rewrite:    func(r *httputil.ProxyRequest) { r.SetURL(target) },
		BufferPool: &pool{sync.Pool{New: func() any { b := make([]byte, size); return &b }}},
		Transport: &http.Transport{
			MaxIdleConnsPerHost: 1024, WriteBufferSize: size, ReadBufferSize: size, DisableCompression: true,
		},
	})
}
