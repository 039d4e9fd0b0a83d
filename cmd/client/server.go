package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	lpfileshare "github.com/lpfileshare/lpfileshare/clients/go"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/protobuf/types/known/durationpb"
)

type capabilitiesCmd struct{}

func (capabilitiesCmd) Run(ctx context.Context, a *app) error {
	return a.call(ctx, func(ctx context.Context, client *lpfileshare.Client, c *connection) error {
		r, err := client.Capabilities(ctx, c.account)
		if err != nil {
			return err
		}
		if a.JSON {
			return a.print(r, "")
		}
		var types []string
		for _, t := range r.GetFileTypes() {
			types = append(types, strings.ToLower(strings.TrimPrefix(t.String(), "FILE_TYPE_")))
		}
		number := func(n int64, unit string) string {
			if n == 0 {
				return "" // an older server
			}
			return strconv.FormatInt(n, 10) + " " + unit
		}
		lasts := func(d *durationpb.Duration) string {
			if d == nil {
				return ""
			}
			return d.AsDuration().String()
		}
		fitted, stripped := "no", "on request"
		if n := r.GetMaxImageInputBytes(); n > 0 {
			fitted = "up to " + number(n, "bytes")
		}
		if r.GetStripsImages() {
			stripped = "always"
		}
		return a.rows([][2]string{
			{"server version", r.GetServerVersion()},
			{"largest file", number(r.GetMaxFileBytes(), "bytes")},
			{"largest small file", number(r.GetMaxSmallFileBytes(), "bytes")},
			{"types", strings.Join(types, " ")},
			{"largest preview", number(int64(r.GetMaxPreviewChars()), "characters")},
			{"longest caption", number(int64(r.GetMaxCaptionChars()), "characters")},
			{"largest image", number(r.GetMaxImagePixels(), "pixels")},
			{"longest display name", number(int64(r.GetMaxDisplayNameChars()), "characters")},
			{"images made to fit", fitted},
			{"images stripped", stripped},
			{"largest chunk", number(int64(r.GetMaxChunkBytes()), "bytes")},
			{"recommended chunk", number(int64(r.GetRecommendedChunkBytes()), "bytes")},
			{"largest message", number(r.GetMaxMessageBytes(), "bytes")},
			{"upload idle timeout", lasts(r.GetUploadIdleTimeout())},
			{"upload timeout", lasts(r.GetUploadTimeout())},
			{"request id lifetime", lasts(r.GetRequestIdTtl())},
			{"heartbeat interval", lasts(r.GetHeartbeatInterval())},
			{"shortest ping interval", lasts(r.GetMinPingInterval())},
		})
	})
}

type healthCmd struct {
	Service string `arg:"" optional:"" help:"Name of a service. Default: the server as a whole."`
}

func (cmd *healthCmd) Run(ctx context.Context, a *app) error {
	ctx, cancel := a.limit(ctx, callTimeout)
	defer cancel()
	c, err := a.connection()
	if err != nil {
		return err
	}
	client, err := a.newClient(c)
	if err != nil {
		return err
	}
	defer client.Close()
	state, err := client.Health(ctx, cmd.Service)
	if err != nil {
		return err
	}
	if a.JSON {
		err = a.printJSON(map[string]string{"status": state.String(), "address": c.address})
	} else {
		_, err = fmt.Fprintln(a.stdout, state)
	}
	if err == nil && state != healthpb.HealthCheckResponse_SERVING {
		return temporaryError{&adviceError{errors.New("the server at " + c.address + " is not serving calls"), "It is starting or shutting down. Retry later."}}
	}
	return err
}
