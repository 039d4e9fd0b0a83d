package main

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"text/template"
	"time"

	"github.com/lpfileshare/lpfileshare/bench/load"
	"github.com/lpfileshare/lpfileshare/bench/proc"
	"github.com/lpfileshare/lpfileshare/test/process"
)

// A peer is something that moves files. It is started anew for each measurement.
type peer struct {
	name, about string
	// start starts it before the stand-ins of a rig and sets the fields of job that say where it is. The caller calls stop.
	start func(r *rig, job *load.Job) (stop func(), err error)
	// against names the peer that is compared with it, if that is not the first one.
	against string
	// most is the largest file in bytes for which it is measured; 0: any.
	most int
}

// maxConsumers is how many consumers share the streams.
const maxConsumers = 64

// serverFlags raise the limits of one caller, because the generator's consumers are few, and let uploads wait for memory as long as
// the others need. The limits of the whole server are its defaults.
var serverFlags = []string{
	"--listen=127.0.0.1:0", "--debug-listen=127.0.0.1:0", "--lp-plain-http", "--ledger=memory", "--documents", "--drain-notice=0s",
	"--queue-time=60s", "--queue-length=4096", "--max-uploads-per-caller=512", "--max-streams-per-caller=1024",
}

var serverReady = regexp.MustCompile(`msg=ready grpc=(\S+).*\sdebug=(\S+)`)

// server returns a peer that is a program of this repository's server, old or new. An empty program is the rig's.
func server(name, about, program string, tls bool, flags ...string) peer {
	return peer{name: name, about: about, start: func(r *rig, job *load.Job) (func(), error) {
		args := append(append([]string{"--domain-api=http://" + r.liveperson.addr}, serverFlags...), flags...)
		if tls {
			args = append(args, "--tls-cert="+r.cert, "--tls-key="+r.key)
			job.CA = r.cert
		}
		p, found, err := process.Start(serverReady, cmp.Or(program, r.server), args...)
		if err != nil {
			return nil, err
		}
		job.Addr, job.Debug, job.PIDs = found[1], found[2], []int{p.PID()}
		job.Consumers, job.LivePerson = maxConsumers, "http://"+r.liveperson.addr
		return p.Kill, nil
	}}
}

// naiveGateway returns the yardstick. With work it makes the requests to LivePerson and uses the ledger that the server at addc3e6 did.
func naiveGateway(name, about string, tls, work bool, flags ...string) peer {
	return peer{name: name, about: about, start: func(r *rig, job *load.Job) (func(), error) {
		args := append([]string{"-store", "http://" + r.sink.addr}, flags...)
		if work {
			job.Consumers, job.LivePerson = maxConsumers, "http://"+r.liveperson.addr
			args = append(args, "-liveperson", job.LivePerson)
		}
		if tls {
			args = append(args, "-tls-cert", r.cert, "-tls-key", r.key)
			job.CA = r.cert
		}
		p, err := r.start("naive", args...)
		if err != nil {
			return nil, err
		}
		job.Addr, job.Debug, job.PIDs = p.addr, p.debug, []int{p.PID()}
		return p.Kill, nil
	}}
}

// direct is the store itself: the generator's HTTP client and nothing between.
func direct(name, about string) peer {
	return peer{name: name, about: about, start: func(r *rig, job *load.Job) (func(), error) {
		job.HTTP, job.Addr, job.PIDs = true, r.sink.addr, []int{r.sink.PID()}
		return func() {}, nil
	}}
}

func reverseProxy(name, about string) peer {
	return peer{name: name, about: about, start: func(r *rig, job *load.Job) (func(), error) {
		p, err := r.start("proxy", "-store", "http://"+r.sink.addr)
		if err != nil {
			return nil, err
		}
		job.HTTP, job.Addr, job.PIDs = true, p.addr, []int{p.PID()}
		return p.Kill, nil
	}}
}

// nginxWorkers is the number of nginx's processes besides the master.
const nginxWorkers = 2

// nginxConf is a proxy that streams. Everything that it writes is in a folder of its own.
var nginxConf = template.Must(template.New("nginx").Parse(`{{if .Root}}user root;{{end}}
worker_processes {{.Workers}};
daemon off;
pid {{.Dir}}/pid;
error_log stderr notice;
events { worker_connections 4096; }
http {
  access_log off;
  client_body_temp_path {{.Dir}}/body;
  proxy_temp_path {{.Dir}}/proxy;
  fastcgi_temp_path {{.Dir}}/fastcgi;
  uwsgi_temp_path {{.Dir}}/uwsgi;
  scgi_temp_path {{.Dir}}/scgi;
  keepalive_requests 1000000;
  client_max_body_size 10m;
  upstream store { server {{.Store}}; keepalive 1024; keepalive_requests 1000000; }
  server {
    listen 127.0.0.1:{{.Port}};
    location / {
      proxy_pass http://store;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_request_buffering off;
      proxy_buffering off;
{{if .Tuned}}      client_body_buffer_size 256k;
      proxy_buffer_size 128k;
      proxy_buffers 4 128k;
{{end}}    }
  }
}
`))

var nginxReady = regexp.MustCompile(`start worker process [0-9]`)

// errMissing is the reason why a peer cannot be measured on this machine.
var errMissing = errors.New("not installed")

func nginx(name, about string, tuned bool) peer {
	return peer{name: name, about: about, start: func(r *rig, job *load.Job) (func(), error) {
		program, err := findNginx()
		if err != nil {
			return nil, err
		}
		dir, err := os.MkdirTemp(r.dir, "nginx")
		if err != nil {
			return nil, err
		}
		ports, err := process.FreePorts(1)
		if err != nil {
			return nil, err
		}
		var conf strings.Builder
		err = nginxConf.Execute(&conf, map[string]any{"Root": os.Getuid() == 0, "Workers": nginxWorkers, "Dir": dir, "Store": r.sink.addr, "Port": ports[0], "Tuned": tuned})
		if err != nil {
			return nil, err
		}
		file := filepath.Join(dir, "nginx.conf")
		if err := os.WriteFile(file, []byte(conf.String()), 0o600); err != nil {
			return nil, err
		}
		p, _, err := process.Start(nginxReady, program, "-c", file, "-e", "stderr", "-p", dir)
		if err != nil {
			return nil, err
		}
		job.HTTP, job.Addr = true, fmt.Sprintf("127.0.0.1:%d", ports[0])
		for tries := 0; len(job.PIDs) != 1+nginxWorkers; tries++ { // it reports each of them when it starts it
			if tries > 1000 {
				_ = p.Stop()
				return nil, fmt.Errorf("nginx has %d processes", len(job.PIDs))
			}
			time.Sleep(time.Millisecond)
			job.PIDs = proc.Tree(p.PID())
		}
		return func() { _ = p.Stop() }, nil
	}}
}

// findNginx looks in /usr/sbin too, which is not in the PATH of every user.
func findNginx() (string, error) {
	for _, name := range []string{"nginx", "/usr/sbin/nginx"} {
		if file, err := exec.LookPath(name); err == nil {
			return file, nil
		}
	}
	return "", fmt.Errorf("nginx: %w", errMissing)
}
