package packaging

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	monitoring "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	apps "k8s.io/api/apps/v1"
	core "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
	policy "k8s.io/api/policy/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"
	gateway "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
)

// TestManifests renders the base and the overlays, decodes them strictly and checks what the API server does not.
func TestManifests(t *testing.T) {
	for dir, want := range map[string]string{
		"kubernetes/base":    "Deployment GRPCRoute NetworkPolicy PersistentVolumeClaim Service Service ServiceAccount",
		"kubernetes/nats":    "Deployment GRPCRoute NetworkPolicy PodDisruptionBudget Service Service ServiceAccount",
		documentedOverlay(t): "ConfigMap Deployment GRPCRoute NetworkPolicy PodDisruptionBudget PodMonitor Secret Service Service ServiceAccount",
	} {
		text := render(t, dir)
		if got := strings.Join(kinds(text), " "); got != want {
			t.Errorf("%s has %s; want %s", dir, got, want)
		}
		for _, fault := range faults(text) {
			t.Errorf("%s: %s", dir, fault)
		}
	}
}

// TestManifests_Catches shows that each check can fail.
func TestManifests_Catches(t *testing.T) {
	text := render(t, documentedOverlay(t))
	for _, c := range []struct{ old, new, want string }{
		{"periodSeconds: 2", "periodSecs: 2", `unknown field "spec.template.spec.containers[0].startupProbe.periodSecs"`},
		{"backendRefs:", "backendReferences:", `unknown field "spec.rules[0].backendReferences"`},
		{"lpfileshare:v1.2.3", "lpfileshare", "has no tag"},
		{"lpfileshare:v1.2.3", "lpfileshare:latest", "has the tag latest"},
		{"podMetricsEndpoints:", "endpoints:", `unknown field "spec.endpoints"`},
		{"path: /metrics\n    port: admin", "path: /metrics\n    port: web", "the pod has no port web"},
		{"runAsNonRoot: true", "runAsNonRoot: false", "runAsNonRoot"},
		{"readOnlyRootFilesystem: true", "readOnlyRootFilesystem: false", "readOnlyRootFilesystem"},
		{"allowPrivilegeEscalation: false", "allowPrivilegeEscalation: true", "allowPrivilegeEscalation"},
		{"terminationGracePeriodSeconds: 50", "terminationGracePeriodSeconds: 41", "terminationGracePeriodSeconds"},
		{"targetPort: grpc", "targetPort: web", "targetPort web"},
		{"    name: grpc\n    port: 50051", "    name: web\n    port: 50052", "GRPCRoute lpfileshare: no port 50051"},
		{"port: grpc\n      protocol: TCP", "port: web\n      protocol: TCP", "port web"},
		{"path: /readyz", "path: /livez", "readinessProbe"},
		{"path: /livez\n            port: admin", "path: /livez\n            port: web", "no port web"},
		{"name: LPFILESHARE_DRAIN_TIME", "name: LPFILESHARE_DRAIN", "LPFILESHARE_DRAIN is no flag"},
		{"minAvailable: 2", "minAvailable: 3", "minAvailable"},
		{"defaultMode: 288", "defaultMode: 292", "defaultMode"},
	} {
		changed := strings.Replace(text, c.old, c.new, 1)
		if changed == text {
			t.Errorf("the manifests have no %q", c.old)
		} else if got := strings.Join(faults(changed), "\n"); !strings.Contains(got, c.want) {
			t.Errorf("%s: got %q; want %s", c.new, got, c.want)
		}
	}
	for _, kind := range []string{"Service", "PodDisruptionBudget", "NetworkPolicy", "Deployment", "PodMonitor"} {
		changed := removeSelector(text, kind)
		if got := strings.Join(faults(changed), "\n"); !strings.Contains(got, kind+" lpfileshare: selects") {
			t.Errorf("an empty selector of %s: got %q", kind, got)
		}
	}
}

// removeSelector makes the selectors of one kind select every pod of the namespace.
func removeSelector(text, kind string) string {
	documents := strings.Split(text, "---\n")
	for i, d := range documents {
		if strings.Contains(d, "kind: "+kind+"\n") {
			d = regexp.MustCompile(`(?m)^(  (?:podS|s)elector:)\n(?:    .*\n)+`).ReplaceAllString(d, "$1 {}\n")
			documents[i] = d
		}
	}
	return strings.Join(documents, "---\n")
}

// documentedOverlay writes the overlay of docs/packaging.md, and returns its directory.
func documentedOverlay(t *testing.T) string {
	t.Helper()
	page, err := os.ReadFile("../docs/packaging.md")
	if err != nil {
		t.Fatal(err)
	}
	block := regexp.MustCompile("(?s)```yaml\n(# kustomization.yaml\n.*?)```").FindSubmatch(page)
	if block == nil {
		t.Fatal("docs/packaging.md has no kustomization.yaml")
	}
	dir := t.TempDir()
	write := func(name string, data []byte) {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("site/kustomization.yaml", block[1])
	for _, name := range []string{"accounts.yaml", "secrets/agent-token.key", "secrets/nats.creds", "secrets/nats-ca.pem"} {
		write("site/"+name, []byte("test\n"))
	}
	if err := os.CopyFS(filepath.Join(dir, "lpfileshare_kubernetes"), os.DirFS("kubernetes")); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, "site")
}

func render(t *testing.T, dir string) string {
	t.Helper()
	objects, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), dir)
	if err != nil {
		t.Fatalf("%s: %v", dir, err)
	}
	text, err := objects.AsYaml()
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func kinds(text string) (kinds []string) {
	for _, m := range regexp.MustCompile(`(?m)^kind: (\w+)$`).FindAllStringSubmatch(text, -1) {
		kinds = append(kinds, m[1])
	}
	slices.Sort(kinds)
	return kinds
}

// decode decodes rendered manifests. Unknown and repeated fields are errors.
func decode(text string) (objects []runtime.Object, faults []string) {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{apps.AddToScheme, core.AddToScheme, networking.AddToScheme, policy.AddToScheme, gateway.Install, monitoring.AddToScheme} {
		if err := add(scheme); err != nil {
			return nil, []string{err.Error()}
		}
	}
	decoder := serializer.NewCodecFactory(scheme, serializer.EnableStrict).UniversalDeserializer()
	for document := range bytes.SplitSeq([]byte(text), []byte("---\n")) {
		object, _, err := decoder.Decode(document, nil, nil)
		if err != nil {
			faults = append(faults, err.Error())
			continue
		}
		objects = append(objects, object)
	}
	return objects, faults
}

// faults returns what is wrong with rendered manifests.
func faults(text string) []string {
	objects, found := decode(text)
	fault := func(object runtime.Object, format string, args ...any) {
		kind := object.GetObjectKind().GroupVersionKind().Kind
		found = append(found, kind+" "+object.(meta.Object).GetName()+": "+fmt.Sprintf(format, args...))
	}
	deployment := only[*apps.Deployment](objects)
	if deployment == nil {
		return append(found, "there must be exactly one Deployment")
	}
	labels := deployment.Spec.Template.Labels
	ports := map[string]int32{}
	for _, c := range deployment.Spec.Template.Spec.Containers {
		for _, p := range c.Ports {
			ports[p.Name] = p.ContainerPort
		}
	}
	served := map[string][]int32{} // by Service
	for _, object := range objects {
		switch o := object.(type) {
		case *apps.Deployment:
			checkSelector(o, o.Spec.Selector, labels, fault)
			checkPod(o, ports, fault)
		case *core.Service:
			checkSelector(o, &meta.LabelSelector{MatchLabels: o.Spec.Selector}, labels, fault)
			for _, p := range o.Spec.Ports {
				served[o.Name] = append(served[o.Name], p.Port)
				if _, ok := ports[p.TargetPort.StrVal]; !ok {
					fault(o, "the pod has no port for targetPort %s", p.TargetPort.String())
				}
			}
		case *policy.PodDisruptionBudget:
			checkSelector(o, o.Spec.Selector, labels, fault)
			if least := o.Spec.MinAvailable; least == nil || int32(least.IntValue()) >= *deployment.Spec.Replicas {
				fault(o, "minAvailable must be less than %d replicas", *deployment.Spec.Replicas)
			}
		case *monitoring.PodMonitor:
			checkSelector(o, &o.Spec.Selector, labels, fault)
			for _, e := range o.Spec.PodMetricsEndpoints {
				if _, ok := ports[ptr.Deref(e.Port, "")]; !ok {
					fault(o, "the pod has no port %s", ptr.Deref(e.Port, ""))
				}
			}
		case *networking.NetworkPolicy:
			checkSelector(o, &o.Spec.PodSelector, labels, fault)
			for _, in := range o.Spec.Ingress {
				for _, p := range in.Ports {
					if _, ok := ports[p.Port.StrVal]; p.Port.Type != intstr.String || !ok {
						fault(o, "the pod has no port %s", p.Port.String())
					}
				}
			}
		}
	}
	if route := only[*gateway.GRPCRoute](objects); route == nil {
		found = append(found, "there must be exactly one GRPCRoute")
	} else {
		for _, rule := range route.Spec.Rules {
			for _, to := range rule.BackendRefs {
				if to.Port == nil || !slices.Contains(served[string(to.Name)], *to.Port) {
					fault(route, "no port %d at service %s", *to.Port, to.Name)
				}
			}
		}
	}
	return found
}

// only returns the one object of a type; its zero value if there is none or another one.
func only[T runtime.Object](objects []runtime.Object) (found T) {
	count := 0
	for _, o := range objects {
		if o, ok := o.(T); ok {
			found = o
			count++
		}
	}
	if count != 1 {
		var none T
		return none
	}
	return found
}

type reportFault func(object runtime.Object, format string, args ...any)

func checkSelector(o runtime.Object, s *meta.LabelSelector, labels map[string]string, fault reportFault) {
	if s == nil || len(s.MatchExpressions) > 0 || !maps.Equal(s.MatchLabels, labels) {
		fault(o, "selects %v, not the pods with %v", s, labels)
	}
}

// checkPod checks the pod of the server.
func checkPod(d *apps.Deployment, ports map[string]int32, fault reportFault) {
	pod := d.Spec.Template.Spec
	if len(pod.Containers) != 1 {
		fault(d, "has %d containers; want 1", len(pod.Containers))
		return
	}
	c := pod.Containers[0]
	if s := pod.SecurityContext; s == nil || s.RunAsNonRoot == nil || !*s.RunAsNonRoot {
		fault(d, "runAsNonRoot must be true")
	}
	if s := c.SecurityContext; s == nil || s.ReadOnlyRootFilesystem == nil || !*s.ReadOnlyRootFilesystem {
		fault(d, "readOnlyRootFilesystem must be true")
	} else if s.AllowPrivilegeEscalation == nil || *s.AllowPrivilegeEscalation || s.Capabilities == nil || !slices.Contains(s.Capabilities.Drop, "ALL") {
		fault(d, "allowPrivilegeEscalation must be false, and ALL capabilities dropped")
	}
	if _, tag, ok := strings.Cut(c.Image[strings.LastIndex(c.Image, "/")+1:], ":"); !ok {
		fault(d, "image %s has no tag", c.Image)
	} else if tag == "latest" {
		fault(d, "image %s has the tag latest", c.Image)
	}
	if c.Resources.Requests.Memory().Cmp(*c.Resources.Limits.Memory()) != 0 || !c.Resources.Limits.Cpu().IsZero() {
		fault(d, "memory must have equal request and limit, and processors no limit")
	}
	drain := time.Duration(0)
	known := flagVariables()
	for _, e := range c.Env {
		if !slices.Contains(known, e.Name) {
			fault(d, "%s is no flag of the server", e.Name)
		}
		if e.Name == "LPFILESHARE_DRAIN_TIME" {
			drain, _ = time.ParseDuration(e.Value)
		}
	}
	const publish = 11 * time.Second // --lp-timeout, and a second to close connections
	if grace := time.Duration(*pod.TerminationGracePeriodSeconds) * time.Second; drain == 0 || grace <= drain+publish {
		fault(d, "terminationGracePeriodSeconds is %v, which is not longer than a drain of %v and %v", grace, drain, publish)
	}
	for name, probe := range map[string]*core.Probe{"startupProbe": c.StartupProbe, "livenessProbe": c.LivenessProbe, "readinessProbe": c.ReadinessProbe} {
		checkProbe(d, name, probe, ports, fault)
	}
	for _, v := range pod.Volumes {
		if v.Secret != nil && (v.Secret.DefaultMode == nil || *v.Secret.DefaultMode != 0o440) {
			fault(d, "defaultMode of volume %s must be 0440", v.Name)
		}
		if !slices.ContainsFunc(c.VolumeMounts, func(m core.VolumeMount) bool { return m.Name == v.Name }) {
			fault(d, "volume %s is not mounted", v.Name)
		}
	}
	for _, m := range c.VolumeMounts {
		if !slices.ContainsFunc(pod.Volumes, func(v core.Volume) bool { return m.Name == v.Name }) {
			fault(d, "there is no volume %s", m.Name)
		}
	}
}

// checkProbe checks that a probe asks for the right page of an existing port: liveness must not depend on the ledger (docs/health.md).
func checkProbe(d *apps.Deployment, name string, p *core.Probe, ports map[string]int32, fault reportFault) {
	if p == nil || p.HTTPGet == nil {
		fault(d, "%s must use HTTP, which needs no client certificate", name)
		return
	}
	want := "/livez"
	if name == "readinessProbe" {
		want = "/readyz"
	}
	if p.HTTPGet.Path != want {
		fault(d, "%s asks for %q; want %q", name, p.HTTPGet.Path, want)
	}
	if _, ok := ports[p.HTTPGet.Port.StrVal]; !ok {
		fault(d, "%s: the pod has no port %s", name, p.HTTPGet.Port.String())
	}
}

// flagVariables returns the environment variables that set flags of the server.
func flagVariables() (names []string) {
	text, err := os.ReadFile("../cmd/server/testdata/flags.txt")
	if err != nil {
		panic(err)
	}
	for _, m := range regexp.MustCompile(`LPFILESHARE_[A-Z_]+`).FindAll(text, -1) {
		names = append(names, string(m))
	}
	return names
}
