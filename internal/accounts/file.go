package accounts

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"

	"github.com/lpfileshare/lpfileshare/internal/share"
)

// Rules are what an accounts file is checked against. Services, CheckDomain and CheckSuffix are required.
type Rules struct {
	// Flags has the settings for what neither the account nor the file's defaults set.
	Flags Account
	// Services are the service names that domains may set.
	Services []string
	// CheckDomain checks a host in domains, CheckSuffix a suffix in domain_suffixes.
	CheckDomain, CheckSuffix func(string) error
	// MaxBytes is the size of the largest file that the memory budget allows; 0 means no limit.
	MaxBytes int64
	// CheckMemory checks an account's limits against the memory budgets. nil means no check.
	CheckMemory func(Account) error
	// Reads, if set, is called with the path of each file before it is read: of the accounts file, and of those with secrets.
	Reads func(path string)
	// NoSecrets leaves secrets out: they are not read, and the accounts do not have them.
	NoSecrets bool
	// LookupEnv reads an environment variable. Default os.LookupEnv.
	LookupEnv func(string) (string, bool)
}

const (
	// maxFile is the maximum size of the file, in bytes: about 10,000 accounts.
	maxFile = 4 << 20
	// defaultLifetime is the lifetime of an issuer's JWT.
	defaultLifetime = time.Hour
	// defaultImageInput is the maximum size of an image that is to be reduced.
	defaultImageInput = 25_000_000
)

// Read reads an accounts file and every secret that it names. The error is of type Faults: all errors, each with its line.
func Read(file string, rules Rules) (*Set, error) {
	if rules.LookupEnv == nil {
		rules.LookupEnv = os.LookupEnv
	}
	if rules.Reads == nil {
		rules.Reads = func(string) {}
	}
	if rules.MaxBytes == 0 {
		rules.MaxBytes = math.MaxInt64
	}
	r := &reader{file: file, rules: rules}
	s := r.read()
	if err := r.err(); err != nil {
		return nil, err
	}
	return s, nil
}

// err returns all faults by line; nil if there are none.
func (r *reader) err() error {
	if len(r.faults) == 0 {
		return nil
	}
	r.faults.sort()
	return r.faults
}

func (r *reader) read() *Set {
	body := r.body("accounts, with an account id below it")
	if body == nil {
		return nil
	}
	return r.set(body)
}

// body reads the file's only document. It returns nil after a fault. An empty file is one: needs says what is missing.
func (r *reader) body(needs string) ast.Node {
	r.rules.Reads(r.file)
	data, err := readBounded(r.file, maxFile)
	if err != nil {
		r.badLine(0, "cannot be read: %v", err)
		return nil
	}
	tree, err := parse(data)
	if err != nil {
		// The error's own text quotes the file, which may contain a secret by mistake.
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
		r.badLine(0, "is empty; it needs %s", needs)
		return nil
	}
	if len(bodies) > 1 {
		r.bad(bodies[1], "a second document starts here; put everything into one")
	}
	return bodies[0]
}

// parse returns a file's syntax tree. A panic of the parser must not end a running server.
func parse(data []byte) (tree *ast.File, err error) {
	defer func() {
		if recover() != nil {
			err = errors.New("not YAML")
		}
	}()
	return parser.ParseBytes(data, 0, parser.AllowDuplicateMapKey()) // duplicate keys are reported with the other faults
}

// set reads the whole file. The defaults are read first, wherever they are.
func (r *reader) set(body ast.Node) *Set {
	var defaults, named, callers ast.Node
	allowOthers := false
	r.mapping(body, "the file", keys{
		"defaults": func(n ast.Node) { defaults = n },
		"others":   r.others(&allowOthers),
		"accounts": func(n ast.Node) { named = n },
		"callers":  func(n ast.Node) { callers = n },
	})
	each := r.rules.Flags
	if defaults != nil {
		known := r.accountKeys("defaults", &each)
		own := func(n ast.Node) {
			r.bad(n, "defaults: identity and app are the credentials of one account; put them below that account")
		}
		known["identity"], known["app"] = own, own
		r.mapping(defaults, "defaults", known)
	}
	s := &Set{Named: map[string]Account{}, Flags: r.rules.Flags}
	if allowOthers {
		at := body
		if defaults != nil {
			at = defaults
		}
		others := r.completed(at, "defaults", each, false)
		s.Others = &others
	}
	if named != nil {
		r.eachKey(named, "accounts", func(id string, key, value ast.Node) {
			if !share.ValidAccountID(id) {
				r.bad(key, "accounts: %.64q is not an account id; use %s", id, share.AccountIDRule)
				return
			}
			s.Named[id] = r.account(id, key, value, each)
		})
	}
	if callers != nil {
		s.Callers = r.callers(callers, s)
	}
	if len(s.Named) == 0 && s.Others == nil && len(r.faults) == 0 {
		r.badLine(0, "names no account, so no call would be handled; put an id under accounts, or set others: allow")
	}
	return s
}

func (r *reader) others(allow *bool) func(ast.Node) {
	return func(n ast.Node) {
		switch s, _ := scalar(n); s {
		case "allow":
			*allow = true
		case "refuse":
		default:
			r.wrongType(n, "others", "allow or refuse")
		}
	}
}

// account reads one account. a has the defaults.
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

// accountKeys returns the keys that both accounts and defaults have.
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

// documents reads the allowed types other than images: true for all, false for none, or a list.
func (r *reader) documents(where string, to *[]share.FileType) func(ast.Node) {
	var allowed []string
	for _, t := range share.Documents() {
		allowed = append(allowed, string(t))
	}
	known := func(t string) error {
		if !slices.Contains(allowed, t) {
			return fmt.Errorf("there is no document type %.64q; there are %s", t, strings.Join(allowed, ", "))
		}
		return nil
	}
	return func(n ast.Node) {
		if all, ok := n.(*ast.BoolNode); ok {
			*to = nil
			if all.Value {
				*to = share.Documents()
			}
			return
		}
		if _, ok := n.(*ast.IntegerNode); ok {
			r.wrongType(n, where, "true, false, or a list of types, for example [PDF, DOCX]")
			return
		}
		var names []string
		r.list(where, known, &names)(n)
		if len(names) == 0 { // a fault was reported
			return
		}
		*to = nil
		for _, name := range names {
			*to = append(*to, share.FileType(name))
		}
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

// domains adds hosts to those of the defaults.
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

// completed checks that the settings of an account agree with each other. It does not if the account already has faults, which may
// be the reason that a setting is missing.
func (r *reader) completed(at ast.Node, where string, a Account, faulty bool) Account {
	if a.FitImages {
		a.MaxImageInputBytes = cmp.Or(a.MaxImageInputBytes, min(defaultImageInput, r.rules.MaxBytes))
	}
	if faulty {
		return a
	}
	switch {
	case a.Messenger == Connector && a.ID == "":
		r.bad(at, "%s: the Connector API needs an app install for each account, so others: allow cannot use it; set messenger: connector "+
			"for each named account, or others: refuse", where)
	case a.Messenger == Connector && a.App == nil:
		r.bad(at, "%s: messenger: connector needs app, with the install's id and its secret_file or secret_env", where)
	case a.Messenger == Messaging && a.App != nil:
		r.bad(at, "%s: app is for the Connector API; set messenger: connector, or remove app", where)
	}
	if a.Messenger == Connector && a.Issuer != nil {
		r.bad(at, "%s: identity.issuer signs in consumers over the messaging socket, which the Connector API does not use; remove identity, or set messenger: messaging", where)
	}
	if r.rules.CheckMemory != nil {
		if err := r.rules.CheckMemory(a); err != nil {
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
		r.bad(n, "%s needs name: the \"iss\" claim, as the brand registered it with LivePerson", where)
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
		if !share.IsPrintableWord(a.Secret) {
			r.bad(secret.at(n), "%s: the secret must be one word of printable ASCII", where)
		}
	}
	if a.ID == "" && len(r.faults) == before {
		r.bad(n, "%s needs id: the install's id, which LivePerson calls client_id", where)
	}
	return a
}

// inFolder resolves a relative path against the file's folder.
func (r *reader) inFolder(path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(filepath.Dir(r.file), path)
}
