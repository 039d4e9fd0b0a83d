package wire

import (
	"encoding/json"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
)

// good returns the frames of testdata/good.json, which each schema must accept, by the schema's name.
func good(t *testing.T) map[string][]any {
	t.Helper()
	data, err := os.ReadFile("testdata/good.json")
	if err != nil {
		t.Fatal(err)
	}
	var frames map[string][]any
	if err := json.Unmarshal(data, &frames); err != nil {
		t.Fatal(err)
	}
	return frames
}

func TestSchemas_AcceptGoodFrames(t *testing.T) {
	c := freshChecker(t)
	frames := good(t)
	for name, s := range c.schemas {
		if len(frames[name]) == 0 {
			t.Errorf("%s has no good frame in testdata/good.json", name)
		}
		for i, f := range frames[name] {
			if err := s.Validate(f); err != nil {
				t.Errorf("%s, frame %d: %v", name, i, err)
			}
		}
	}
	for name := range frames {
		if c.schemas[name] == nil {
			t.Errorf("testdata/good.json has frames for %s, which is not a schema", name)
		}
	}
}

// optional has the members that every frame may omit; all other members of a good frame are required. "body" and "conversationId" are
// optional in some frames only; testdata/examples.json has frames in which they are required.
var optional = strings.Fields(`body conversationId messageAudience metadata originatorMetadata clientProperties preview details
	minLastUpdatedTime stage agentIds newerThanSequence brandId channelType ttrDefName skillId campaignInfo conversationContext
	lang visitorId sessionId interactionContextId appId appVersion ipAddress deviceFamily os osVersion osName integration
	integrationVersion browser browserVersion timeZone deviceManufacture deviceModel features convId effectiveTTR lastUpdateTime
	lastContentEventNotification closeReason endTs metaDataLastUpdateTs firstConversation ttr delay manualETTR csat dialogs
	dialogType creationTs closedBy closedCause participantsDetails context state sequence serverTimestamp routingTaskId
	ringExpiration ringExpirationTs weight consumerId description agentUserId channels CONSUMER ASSIGNED_AGENT
	firstName lastName avatarUrl backgndImgUri privateData mobileNum mail pushNotificationData serviceName certName token`)

// excused reports whether a frame from the sandbox remains valid with this damage, because the member repeats what a client sent.
func excused(schema, damage string) bool {
	within := func(place string) bool { return strings.Contains(damage, place) }
	switch {
	case schema == "connector.response.error" && damage == "no /reqId": // where no request was read
		return true
	case strings.Contains(schema, ".request."):
		return false
	case within("/event"):
		return strings.HasPrefix(damage, unknownMember) || within("/caption") || within("/content/")
	case strings.HasSuffix(schema, ".profile"):
		return within("/body/") || within(unknownMember+" in /body")
	}
	return within("/context") || within("/clientProperties") || within("/metadata[]")
}

const unknownMember = "an unknown member"

// TestSchemas_RejectDamagedFrames damages good frames: it omits each member, adds an unknown member, and changes the type of each value.
// The variables above list the exceptions, because the schemas cannot be their own reference.
func TestSchemas_RejectDamagedFrames(t *testing.T) {
	c := freshChecker(t)
	d := damager{docs: map[string]any{}}
	for name, frames := range good(t) {
		tried := 0
		for _, f := range frames {
			d.walk(t, name+".json", d.doc(t, name+".json"), f, "", func(where string) {
				tried++
				if !excused(name, where) && c.schemas[name].Validate(f) == nil {
					data, _ := json.Marshal(f)
					t.Errorf("%s accepts a frame with %s: %s", name, where, data)
				}
			})
		}
		if tried < 10 {
			t.Errorf("%s: only %d kinds of damage tried", name, tried)
		}
		d.tried += tried
	}
	t.Logf("%d damaged frames rejected", d.tried)
}

// A damager changes frames in place, calls rejected, and undoes the change.
type damager struct {
	docs  map[string]any
	tried int
}

func (d *damager) doc(t *testing.T, file string) any {
	if d.docs[file] == nil {
		doc, err := document(file)
		if err != nil {
			t.Fatal(err)
		}
		d.docs[file] = doc
	}
	return d.docs[file]
}

// resolve follows $ref. It ignores keywords beside $ref, which walk handles.
func (d *damager) resolve(t *testing.T, file string, schema map[string]any) (string, map[string]any) {
	for {
		ref, ok := schema["$ref"].(string)
		if !ok {
			return file, schema
		}
		target, pointer, _ := strings.Cut(ref, "#/$defs/")
		if target != "" {
			file = target
		}
		schema = member(member(d.doc(t, file), "$defs"), pointer).(map[string]any)
	}
}

// walk visits v as its schema describes it, and calls rejected after each change with a description of the change.
func (d *damager) walk(t *testing.T, file string, described, v any, where string, rejected func(string)) {
	schema, ok := described.(map[string]any)
	if !ok {
		return
	}
	file, schema = d.resolve(t, file, schema)
	for _, branch := range list(schema["oneOf"]) {
		bfile, b := d.resolve(t, file, branch.(map[string]any))
		if d.suits(t, bfile, b, v) {
			d.walk(t, bfile, b, v, where, rejected)
		}
	}
	switch v := v.(type) {
	case map[string]any:
		for name, was := range v {
			if !slices.Contains(optional, name) || slices.Contains(list(schema["required"]), any(name)) {
				delete(v, name)
				rejected("no " + where + "/" + name)
				v[name] = was
			}
		}
		v["neverHeardOf"] = 1.0
		rejected(unknownMember + " in " + where)
		delete(v, "neverHeardOf")
		properties, _ := schema["properties"].(map[string]any)
		for _, name := range slices.Sorted(maps.Keys(properties)) {
			was, has := v[name]
			if has {
				for _, other := range otherTypes(was) {
					if allows(properties[name], other) {
						continue
					}
					v[name] = other
					rejected("another type of " + where + "/" + name)
				}
				v[name] = was
				d.walk(t, file, properties[name], was, where+"/"+name, rejected)
			}
		}
	case []any:
		for i, item := range v {
			s := schema["items"]
			if prefix := list(schema["prefixItems"]); i < len(prefix) {
				s = prefix[i]
			}
			for _, other := range otherTypes(item) {
				v[i] = other
				rejected("another type of " + where + "[]")
			}
			v[i] = item
			d.walk(t, file, s, item, where+"[]", rejected)
		}
	}
}

// suits reports whether v has every constant that the schema requires of its members.
func (d *damager) suits(t *testing.T, file string, schema map[string]any, v any) bool {
	properties, _ := schema["properties"].(map[string]any)
	for name, p := range properties {
		_, s := d.resolve(t, file, p.(map[string]any))
		if c, has := s["const"]; has && c != member(v, name) {
			return false
		}
	}
	return true
}

func list(v any) []any {
	l, _ := v.([]any)
	return l
}

// allows reports whether the schema of a member with several types allows the type of v.
func allows(described, v any) bool {
	types := list(member(described, "type"))
	switch v.(type) {
	case nil:
		return slices.Contains(types, "null")
	case string:
		return slices.Contains(types, "string")
	case float64:
		return slices.Contains(types, "integer") && v == 1.0
	}
	return false
}

// otherTypes returns values of other types than v.
func otherTypes(v any) []any {
	object, array := map[string]any{}, []any{}
	switch v.(type) {
	case string:
		return []any{1.0, true, nil, object, array}
	case float64:
		return []any{"1", 1.5, true, nil, object, array}
	case bool:
		return []any{"true", 1.0, nil, object, array}
	case map[string]any:
		return []any{"x", 1.0, true, array}
	case []any:
		return []any{"x", 1.0, true, object}
	}
	return []any{"x", 1.0, true, object} // null
}
