package lpws

import (
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lpfileshare/lpfileshare/internal/share"
)

// Whatever LivePerson does after a publish, an answer that is not that of the message is no proof, in either direction.
func TestPublishFile_OnlyItsOwnAnswerCounts(t *testing.T) {
	for name, x := range map[string]struct {
		answer   func(k *peerSocket, id string)
		sequence int64
		want     share.Kind
	}{
		"an answer to no request": {func(k *peerSocket, _ string) { k.send(published, "77", 3) }, 0, share.LPPublishUnconfirmed},
		"an answer without an id": {func(k *peerSocket, _ string) { k.send(published, "", 3) }, 0, share.LPPublishUnconfirmed},
		"another request's answer": {func(k *peerSocket, id string) {
			k.send(`{"kind":"resp","reqId":%q,"code":200,"body":{"currentTime":1}}`, id)
		}, 0, share.LPPublishUnconfirmed},
		"the wrong id, then its own":   {func(k *peerSocket, id string) { k.send(published, "77", 3); k.send(published, id, 4) }, 4, ""},
		"a denial with the wrong id":   {func(k *peerSocket, _ string) { k.send(`{"kind":"resp","reqId":"77","code":403,"body":"no"}`) }, 0, share.LPPublishUnconfirmed},
		"a close frame":                {func(k *peerSocket, _ string) { k.close(1000) }, 0, share.LPPublishUnconfirmed},
		"a close frame for the login":  {func(k *peerSocket, _ string) { k.close(closeAuthenticate) }, 0, share.LPPublishUnconfirmed},
		"its answer and a close frame": {func(k *peerSocket, id string) { k.send(published, id, 5); k.close(1000) }, 5, ""},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				p := newPeer(t)
				p.answer = func(k *peerSocket, typ, id string, _ map[string]any) bool {
					if typ == reqPublish {
						x.answer(k, id)
					}
					return typ == reqPublish
				}
				seq, err := p.session().PublishFile(ctxOf(t), "c", "", hosted(folder+"a.PNG", ""))
				if share.KindOf(err) != x.want || seq != x.sequence {
					t.Errorf("sequence %d, %v", seq, err)
				}
			})
		})
	}
}

const published = `{"kind":"resp","reqId":%q,"code":200,"body":{"sequence":%d}}`

// An answer that arrives on the next connection is not taken for that of a request there.
func TestPublishFile_AnswerAfterReconnect(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := newPeer(t)
		var earlier []string
		p.answer = func(k *peerSocket, typ, id string, _ map[string]any) bool {
			if typ != reqPublish {
				return false
			}
			if earlier = append(earlier, id); len(earlier) == 1 {
				k.close(1001)
				return true
			}
			k.send(published, earlier[0], 8) // as if the first were answered now
			k.send(published, id, 9)
			return true
		}
		s := p.session()
		_, err := s.PublishFile(ctxOf(t), "c", "", hosted(folder+"a.PNG", ""))
		want(t, err, share.LPPublishUnconfirmed)
		if seq, err := s.PublishFile(ctxOf(t), "c", "", hosted(folder+"b.PNG", "")); err != nil || seq != 9 {
			t.Errorf("sequence %d, %v; request ids %q", seq, err, earlier)
		}
	})
}

// A conversation whose id is not in the answer exists.
func TestCreateConversation_WithoutAnID(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := newPeer(t)
		p.answer = func(k *peerSocket, typ, id string, _ map[string]any) bool {
			if typ == reqNewConversation {
				k.send(`{"kind":"resp","reqId":%q,"code":200,"body":{}}`, id)
			}
			return typ == reqNewConversation
		}
		_, err := p.session().CreateConversation(ctxOf(t), share.NewConversation{})
		want(t, err, share.LPPublishUnconfirmed)
	})
}

// A conversation that LivePerson's answer names exists, whatever follows the answer.
func TestCreateConversation_AnsweredAndThenLost(t *testing.T) {
	for name, code := range map[string]int{"the login ends": closeAuthenticate, "the connection ends": 1001} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				p := newPeer(t)
				p.answer = func(k *peerSocket, typ, id string, _ map[string]any) bool {
					if typ == reqNewConversation {
						k.send(`{"kind":"resp","reqId":%q,"code":200,"body":{"conversationId":"new"}}`, id)
						k.close(code)
					}
					return typ == reqNewConversation
				}
				c, err := p.session().CreateConversation(ctxOf(t), share.NewConversation{SkillID: "7"})
				if err != nil || c.ID != "new" || !c.Open || c.SkillID != "7" {
					t.Errorf("got %+v, %v", c, err)
				}
			})
		})
	}
}

// RefreshConversations returns what LivePerson lists when it is asked, and reports a list that may lack conversations.
func TestRefreshConversations(t *testing.T) {
	const found = `{"type":"UPSERT","result":{"convId":"new","conversationDetails":{"state":"OPEN","startTs":9,"metaDataLastUpdateTs":100}}}`
	answer := func(k *peerSocket, id, changes string) {
		k.send(`{"kind":"resp","reqId":%q,"code":200,"body":{"subscriptionId":"s%s"}}`, id, id)
		k.send(`{"kind":"notification","type":"cqm.ExConversationChangeNotification","body":{"subscriptionId":"s%s","changes":[%s]}}`, id, changes)
	}
	all := func(k *peerSocket, id string) { answer(k, id, found+","+upsert("OPEN", 100, "", "")) }
	for name, x := range map[string]struct {
		refresh func(k *peerSocket, id string, n int)
		want    error
	}{
		"listed": {func(k *peerSocket, id string, _ int) { all(k, id) }, nil},
		"the connection ends": {func(k *peerSocket, id string, n int) {
			if n == 1 {
				k.close(1001)
				return
			}
			all(k, id)
		}, nil},
		"as many as LivePerson lists": {func(k *peerSocket, id string, _ int) { answer(k, id, found+strings.Repeat(","+found, listLimit-1)) }, share.ErrIncomplete},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				p := newPeer(t)
				n := -1 // the first list is that of the session
				p.answer = func(k *peerSocket, typ, id string, _ map[string]any) bool {
					if typ != reqSubscribeConvs {
						return false
					}
					if n++; n == 0 {
						return false
					}
					x.refresh(k, id, n)
					return true
				}
				s := p.session()
				list, err := s.RefreshConversations(ctxOf(t))
				if !errors.Is(err, x.want) || len(list) != 2 || list[0].ID != "new" {
					t.Errorf("got %+v, %v", list, err)
				}
			})
		})
	}
}

// A list that was requested before RefreshConversations was called is not enough.
func TestRefreshConversations_EarlierRequestIsNoProof(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := newPeer(t)
		n := -1 // the first list is that of the session
		requested := make(chan struct{})
		p.answer = func(k *peerSocket, typ, id string, _ map[string]any) bool {
			if typ != reqSubscribeConvs {
				return false
			}
			if n++; n == 1 {
				close(requested)
				time.Sleep(time.Second)
			}
			return false
		}
		s := p.session()
		var looking sync.WaitGroup
		looking.Go(func() {
			_, err := s.Conversation(ctxOf(t), "unknown")
			want(t, err, share.ConversationNotFound)
		})
		<-requested
		if list, err := s.RefreshConversations(ctxOf(t)); err != nil || len(list) != 1 || n != 2 {
			t.Errorf("got %+v, %v; %d lists were requested", list, err, n)
		}
		looking.Wait()
	})
}

// If LivePerson returns fewer messages than it has announced, FindFile reports that a missing file is not proven to be missing.
func TestFindFile_TruncatedDialogIsNoProof(t *testing.T) {
	for name, x := range map[string]struct {
		events     []string
		incomplete bool
	}{
		"all":              {[]string{fileEvent("c", 0, "a"), textEvent(1), textEvent(2), textEvent(3)}, false},
		"a hidden one":     {[]string{fileEvent("c", 0, "a"), textEvent(1), textEvent(3)}, false},
		"without the end":  {[]string{fileEvent("c", 0, "a"), textEvent(1)}, true},
		"none":             {nil, true},
		"one behind a gap": {[]string{fileEvent("c", 0, "a"), textEvent(3), textEvent(7)}, false}, // it is read again, knowing of 7
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				p := newPeer(t)
				p.last = `,"lastContentEventNotification":{"sequence":3,"dialogId":"c"}`
				p.add("c", x.events...)
				s := p.session()
				_, err := s.FindFile(ctxOf(t), "c", "", folder+"absent")
				want(t, err, share.FileNotFound)
				if errors.Is(err, share.ErrIncomplete) != x.incomplete {
					t.Error(err)
				}
			})
		})
	}
}
