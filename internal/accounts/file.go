package accounts

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

// Rules say what an accounts file is held against. Services, CheckDomain and CheckSuffix are required.
type Rules struct {
	// Flags is what holds where neither the account nor the file's defaults say anything.
	Flags Account
	// Services are the names that domains may have.
	Services []string
	// CheckDomain and CheckSuffix say what is wrong with a host that is pinned, and with a suffix.
	CheckDomain, CheckSuffix func(string) error
	// Documents are the types that documents may have, all together.
	Documents []string
	// MaxBytes is the largest file that there is memory for; 0: no limit.
	MaxBytes int64
	// CheckRoom says what an account's limits take that there is no memory for. Default: there is.
	CheckRoom func(Account) error
	// LookupEnv reads the environment. Default: os.LookupEnv.
	LookupEnv func(string) (string, bool)
}

const (
	// maxFile bounds the file: some 10,000 accounts.
	maxFile = 4 << 20
	// defaultLifetime is how long an issuer's JWT is good for.
	defaultLifetime = time.Hour
	// defaultImageInput is the most that is taken of an image that is to be made to fit.
	defaultImageInput = 25_000_000
)

// Read reads an accounts file and every secret that it names. The error is Faults: all that is wrong, each with its line.
func Read(file string, rules Rules) (*Set, error) {
	if rules.LookupEnv == nil {
		rules.LookupEnv = os.LookupEnv
	}
	if rules.MaxBytes == 0 {
		rules.MaxBytes = math.MaxInt64
	}
	r := &reader{file: file, rules: rules}
	s := r.read()
	if len(r.faults) > 0 {
		r.faults.sort()
		return nil, r.faults
	}
	return s, nil
}

func (r *reader) read() *Set {
	data, err := readBounded(r.file, maxFile)
	if err != nil {
		r.badLine(0, "cannot be read: %v", err)
		return nil
	}
	tree, err := parse(data)
	if err != nil {
		// What the error prints shows lines of the file, and somebody may have written a secret there.
		if at, ok := errors.AsType[yaml.Error](err); ok && at.GetToken() != nil {
			r.badLine(at.GetToken().Position.Line, "not YAML: %s", at.GetMessage())
		} else {
			r.badLine(0, "not YAML")
		}
		return nil
	}
	var bodies []ast.Node
	for _, doc := range tree.Docs {
		if doc.Body != nil && doc.Body.Type() != ast.CommentType {
			bodies = append(bodies, doc.Body)
		}
	}
	if len(bodies) == 0 {
		r.badLine(0, "holds nothing; it needs accounts, with an account id below it")
		return nil
	}
	if len(bodies) > 1 {
		r.bad(bodies[1], "a second document begins here; put everything into one")
	}
	return r.set(bodies[0])
}

// parse makes a file's syntax tree. A parser that breaks must not take a running server with it.
func parse(data []byte) (tree *ast.File, err error) {
	defer func() {
		if recover() != nil {
			err = errors.New("not YAML")
		}
	}()
	return parser.ParseBytes(data, 0, parser.AllowDuplicateMapKey()) // keys that come twice are told with the other faults
}

// set reads the whole file. The defaults come first, wherever they stand.
func (r *reader) set(body ast.Node) *Set {
	var defaults, named ast.Node
	serveOthers := false
	r.mapping(body, "the file", keys{
		"defaults": func(n ast.Node) { defaults = n },
		"others":   r.others(&serveOthers),
		"accounts": func(n ast.Node) { named = n },
	})
	each := r.rules.Flags
	if defaults != nil {
		known := r.accountKeys("defaults", &each)
		own := func(n ast.Node) {
			r.bad(n, "defaults: identity and app hold one account's credentials; put them below that account")
		}
		known["identity"], known["app"] = own, own
		r.mapping(defaults, "defaults", known)
	}
	s := &Set{Named: map[string]Account{}}
	if serveOthers {
		at := body
		if defaults != nil {
			at = defaults
		}
		others := r.completed(at, "defaults", each, false)
		s.Others = &others
	}
	if named != nil {
		r.eachKey(named, "accounts", func(id string, key, value ast.Node) {
			if !accountID.MatchString(id) {
				r.bad(key, "accounts: %.64q is no account id, which has up to 32 letters and digits", id)
				return
			}
			s.Named[id] = r.account(id, key, value, each)
		})
	}
	if len(s.Named) == 0 && s.Others == nil && len(r.faults) == 0 {
		r.badLine(0, "names no account, so that nobody would be served; put an id under accounts, or say others: allow")
	}
	return s
}

var accountID = regexp.MustCompile(`^[A-Za-z0-9]{1,32}$`)

func (r *reader) others(serve *bool) func(ast.Node) {
	return func(n ast.Node) {
		switch s, _ := scalar(n); s {
		case "allow":
			*serve = true
		case "refuse":
		default:
			r.wrongType(n, "others", "allow or refuse")
		}
	}
}

// account reads one account, which begins as the defaults.
func (r *reader) account(id string, key, body ast.Node, a Account) Account {
	where := "account " + id
	a.ID = id
	before := len(r.faults)
	known := r.accountKeys(where, &a)
	known["identity"] = func(n ast.Node) {
		r.mapping(n, where+": identity", keys{"issuer": func(n ast.Node) { a.Issuer = r.issuer(n, where+": identity.issuer") }})
	}
	known["app"] = func(n ast.Node) { a.App = r.app(n, where+": app") }
	r.mapping(body, where, known)
	return r.completed(key, where, a, len(r.faults) > before)
}

// accountKeys are the keys that accounts and defaults have in common.
func (r *reader) accountKeys(where string, a *Account) keys {
	at := func(key string) string { return where + ": " + key }
	return keys{
		"messenger":       r.messenger(at("messenger"), &a.Messenger),
		"domains":         r.domains(at("domains"), a),
		"domain_suffixes": r.list(at("domain_suffixes"), r.rules.CheckSuffix, &a.DomainSuffixes),
		"limits": func(n ast.Node) {
			r.mapping(n, at("limits"), keys{
				"max_file_bytes":   r.size(at("limits.max_file_bytes"), &a.MaxFileBytes),
				"max_image_pixels": r.pixels(at("limits.max_image_pixels"), &a.MaxImagePixels),
				"documents":        r.documents(at("limits.documents"), &a.Documents),
			})
		},
		"images": func(n ast.Node) {
			r.mapping(n, at("images"), keys{
				"fit":             r.boolean(at("images.fit"), &a.FitImages),
				"max_input_bytes": r.size(at("images.max_input_bytes"), &a.MaxImageInputBytes),
				"strip_metadata":  r.boolean(at("images.strip_metadata"), &a.StripImages),
			})
		},
		"check_etag":      r.boolean(at("check_etag"), &a.CheckETag),
		"accept_receipts": r.boolean(at("accept_receipts"), &a.AcceptReceipts),
		"access_receipts": r.boolean(at("access_receipts"), &a.AccessReceipts),
	}
}

// documents reads which types are allowed beside images: true for all, false for none, or a list of them.
func (r *reader) documents(where string, to *[]string) func(ast.Node) {
	known := func(t string) error {
		if !slices.Contains(r.rules.Documents, t) {
			return fmt.Errorf("there is no document type %.64q; there are %s", t, strings.Join(r.rules.Documents, ", "))
		}
		return nil
	}
	return func(n ast.Node) {
		if all, ok := n.(*ast.BoolNode); ok {
			*to = nil
			if all.Value {
				*to = r.rules.Documents
			}
			return
		}
		if _, ok := n.(*ast.IntegerNode); ok {
			r.wrongType(n, where, "true, false, or a list of types, for example [PDF, DOCX]")
			return
		}
		r.list(where, known, to)(n)
	}
}

func (r *reader) messenger(where string, to *Messenger) func(ast.Node) {
	return func(n ast.Node) {
		switch s, _ := scalar(n); Messenger(s) {
		case Messaging, Connector:
			*to = Messenger(s)
		default:
			r.wrongType(n, where, fmt.Sprintf("%s or %s", Messaging, Connector))
		}
	}
}

// domains adds to what holds already.
func (r *reader) domains(where string, a *Account) func(ast.Node) {
	return func(n ast.Node) {
		all := map[string]string{}
		maps.Copy(all, a.Domains)
		r.eachKey(n, where, func(service string, key, value ast.Node) {
			if !slices.Contains(r.rules.Services, service) {
				r.unknown(key, service, where, r.rules.Services)
				return
			}
			host, ok := scalar(value)
			if !ok {
				r.wrongType(value, where+"."+service, "a host, for example va.idp.liveperson.net")
			} else if err := r.rules.CheckDomain(host); err != nil {
				r.bad(value, "%s.%s: %v", where, service, err)
			} else {
				all[service] = host
			}
		})
		a.Domains = all
	}
}

// completed checks what the parts of an account must be to each other. Where its own lines were faulty already, a part may be
// missing for that reason alone, and nothing is said of it.
func (r *reader) completed(at ast.Node, where string, a Account, faulty bool) Account {
	if a.FitImages {
		a.MaxImageInputBytes = cmp.Or(a.MaxImageInputBytes, min(defaultImageInput, r.rules.MaxBytes))
	}
	if faulty {
		return a
	}
	switch {
	case a.Messenger == Connector && a.ID == "":
		r.bad(at, "%s: the Connector API needs an app install of each account, so that others: allow cannot be served by it; say messenger: connector "+
			"for each account that is named, or others: refuse", where)
	case a.Messenger == Connector && a.App == nil:
		r.bad(at, "%s: messenger: connector needs app, with the install's id and its secret_file or secret_env", where)
	case a.Messenger == Messaging && a.App != nil:
		r.bad(at, "%s: app is for the Connector API; say messenger: connector, or leave app out", where)
	}
	if a.Messenger == Connector && a.Issuer != nil {
		r.bad(at, "%s: identity.issuer signs consumers in over the messaging socket; the Connector API has none: leave identity out, or say messenger: messaging", where)
	}
	if r.rules.CheckRoom != nil {
		if err := r.rules.CheckRoom(a); err != nil {
			r.bad(at, "%s: %v", where, err)
		}
	}
	return a
}

// issuer reads identity.issuer.
func (r *reader) issuer(n ast.Node, where string) *Issuer {
	i := &Issuer{Lifetime: defaultLifetime}
	var key secretSource
	before := len(r.faults)
	r.mapping(n, where, keys{
		"name":     r.word(where+".name", &i.Name),
		"key_id":   r.word(where+".key_id", &i.KeyID),
		"key_file": key.file,
		"key_env":  key.env,
		"lifetime": r.duration(where+".lifetime", time.Minute, 24*time.Hour, &i.Lifetime),
	})
	pem, ok := r.secret(n, where, "key", key)
	if ok {
		signer, err := parseKey(pem)
		if err != nil {
			r.bad(key.at(n), "%s: %v", where, err)
		} else {
			i.Key = signer
		}
	}
	if i.Name == "" && len(r.faults) == before {
		r.bad(n, "%s needs name: the \"iss\" claim, as the brand registered it at LivePerson", where)
	}
	return i
}

// app reads app.
func (r *reader) app(n ast.Node, where string) *App {
	a := &App{}
	var secret secretSource
	before := len(r.faults)
	r.mapping(n, where, keys{
		"id":          r.word(where+".id", &a.ID),
		"secret_file": secret.file,
		"secret_env":  secret.env,
		"webhooks":    r.boolean(where+".webhooks", &a.Webhooks),
	})
	if text, ok := r.secret(n, where, "secret", secret); ok {
		a.Secret = strings.TrimSpace(string(text))
		if a.Secret == "" || strings.ContainsFunc(a.Secret, func(c rune) bool { return c <= ' ' || c > '~' }) {
			r.bad(secret.at(n), "%s: the secret must be one word of printable ASCII", where)
		}
	}
	if a.ID == "" && len(r.faults) == before {
		r.bad(n, "%s needs id: the install's id, which LivePerson calls client_id", where)
	}
	return a
}

// inFolder makes a path that is relative one of the file's own folder.
func (r *reader) inFolder(path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(filepath.Dir(r.file), path)
}
