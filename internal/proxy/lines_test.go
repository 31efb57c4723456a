package proxy

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	patternpb "github.com/prism-data-layer/prism/gen/prism/pattern"
)

// lines posts a streamed multicast and returns what reads its answer.
func (b *bench) lines(body string) (got answer, next func() string) {
	b.t.Helper()
	req, err := http.NewRequestWithContext(b.ctx, http.MethodPost, b.url+base+"/identities:multicastStream", strings.NewReader(body))
	if err != nil {
		b.t.Fatal(err)
	}
	resp, err := b.http.Do(req)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { resp.Body.Close() })
	in := bufio.NewReader(resp.Body)
	return answer{resp.StatusCode, resp.Header}, func() string {
		line, err := in.ReadString('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			b.t.Fatal(err)
		}
		return strings.TrimSuffix(line, "\n")
	}
}

// Each step is a line that arrives when it happens, however long the multicast takes; nothing stands between them.
func TestMulticastLines(t *testing.T) {
	b := serve(t, Config{WriteTimeout: 50 * time.Millisecond})
	b.register("a", "nobody")
	c := b.attach("a")
	payload := base64.StdEncoding.EncodeToString([]byte("<x>"))
	resp, next := b.lines(`{"payload":"` + payload + `","timeout":"20s"}`)
	if resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Type") != "application/x-ndjson" || resp.Header.Get(requestIDHTTP) == "" {
		t.Fatalf("%d %v", resp.StatusCode, resp.Header)
	}
	var began struct {
		Result struct {
			Began struct {
				MulticastID string `json:"multicast_id"`
				TargetCount int    `json:"target_count"`
			} `json:"began"`
		} `json:"result"`
	}
	if line := next(); json.Unmarshal([]byte(line), &began) != nil || began.Result.Began.MulticastID == "" || began.Result.Began.TargetCount != 2 {
		t.Fatalf("the first line: %s", line)
	}
	batch := c.recv().GetMessages()
	until := time.Now().Add(150 * time.Millisecond)
	eventually(t, "the write timeout passes", func() bool { return time.Now().After(until) })
	c.send(&patternpb.SubscribeRequest{Request: &patternpb.SubscribeRequest_Acks{Acks: &patternpb.Acks{Acks: []*patternpb.Ack{{
		Identity: "a", MessageId: batch.GetMessages()[0].GetMessageId(), ReplyCode: 5, ReplyBody: []byte("ok"),
	}}}}})
	var rest []string
	for line := next(); line != ""; line = next() {
		rest = append(rest, line)
	}
	all := strings.Join(rest, "\n")
	for _, part := range []string{
		`{"result":{"statuses":{"statuses":[{"identity":"a","status":"DELIVERED"`, `"reply_code":5,"reply_body":"b2s="`, `"identity":"nobody","status":"FAILED"`,
	} {
		if !strings.Contains(all, part) {
			t.Errorf("lacks %s:\n%s", part, all)
		}
	}
	if last := rest[len(rest)-1]; !strings.HasPrefix(last, `{"result":{"ended":{"multicast_id":"`+began.Result.Began.MulticastID) || !strings.Contains(last, `"delivered_count":1`) || !strings.Contains(last, `"reply_counts":{"5":1}`) {
		t.Errorf("the last line: %s", last)
	}
}

// What goes wrong before the first line is an error like that of any other route; afterwards it is the last line.
func TestErrorsOfMulticastLines(t *testing.T) {
	b := serve(t, Config{})
	b.register("a", "b")
	for body, want := range map[string]string{
		`{"max_targets":1}`:                  `429 "code": "RESOURCE_EXHAUSTED"`,
		`{"filter":{"x":{"$y":1}}}`:          `400 "field": "filter/x/$y"`,
		`{"request":{}}`:                     `400 legal fields: namespace, filter, payload`,
		`{"namespace":"other"}`:              `400 the path says \"default\"`,
		`{"idempotency_key":"k"}`:            `400 "code": "FAILED_PRECONDITION"`,
		`[`:                                  `400 "code": "INVALID_ARGUMENT"`,
		`{"filter":{"n":36028797018963969}}`: `400 would be rounded`,
	} {
		code, text, _ := strings.Cut(want, " ")
		resp, got := b.do("POST", base+"/identities:multicastStream", body)
		if fmt.Sprint(resp.StatusCode) != code || !strings.Contains(got, text) || resp.Header.Get("Content-Type") != "application/json" {
			t.Errorf("%s: %d %s", body, resp.StatusCode, got)
		}
	}
	if resp, got := b.do("POST", "/v1/namespaces/nope/identities:multicastStream", ""); resp.StatusCode != http.StatusNotFound {
		t.Errorf("%d %s", resp.StatusCode, got)
	}
	if resp, got := b.do("POST", base+"/identities:multicastStream", ""); resp.StatusCode != http.StatusOK || strings.Count(got, "\n") != 3 {
		t.Errorf("without a body: %d %s", resp.StatusCode, got)
	}
	if resp, got := b.do("POST", base+"/identities:multicastStream", `{"dry_run":true}`); resp.StatusCode != http.StatusOK || !strings.Contains(got, `"ended":"DRY_RUN"`) || strings.Count(got, `"identity":`) != 2 {
		t.Errorf("dry run: %d %s", resp.StatusCode, got)
	}

	b.attach("a") // acks nothing
	_, next := b.lines(`{"timeout":"20s"}`)
	next()
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if err := b.Drain(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("drain: %v", err)
	}
	b.drainErr = nil // the clean-up checks it
}

// Leaving the request ends the multicast.
func TestMulticastLinesLeft(t *testing.T) {
	b := serve(t, Config{})
	b.register("a")
	b.attach("a") // acks nothing
	conn, err := new(net.Dialer).DialContext(b.ctx, "tcp", strings.TrimPrefix(b.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(conn, "POST %s/identities:multicastStream HTTP/1.1\r\nHost: localhost\r\nContent-Length: 17\r\n\r\n{\"timeout\":\"20s\"}", base)
	if line, err := bufio.NewReader(conn).ReadString('\n'); err != nil || !strings.Contains(line, "200") {
		t.Fatal(line, err)
	}
	conn.Close()
	eventually(t, "the call ends", func() bool {
		b.drain.mu.Lock()
		defer b.drain.mu.Unlock()
		return b.drain.calls == 0
	})
}

func TestMulticastsOverHTTP(t *testing.T) {
	b := serve(t, Config{}, durable())
	b.register("a", "b")
	sent, err := b.rpc.Multicast(b.ctx, &patternpb.MulticastRequest{})
	if err != nil {
		t.Fatal(err)
	}
	one := base + "/multicasts/" + sent.GetMulticastId()
	for _, row := range []struct {
		method, path, body string
		code               int
		has                []string
	}{
		{"GET", base + "/multicasts", "", 200, []string{`"state":"RETURNED"`, `"pending_count":2`, `"multicast_id":"` + sent.GetMulticastId(), `"next_page_token":""`}},
		{"GET", base + "/multicasts?page_size=1", "", 200, []string{`"state":"RETURNED"`}},
		{"GET", base + "/multicasts?page_size=x", "", 400, []string{`page_size`}},
		{"GET", base + "/multicasts?report=ALL", "", 400, []string{`legalparameters:page_size,page_token`}},
		{"GET", one, "", 200, []string{`"statuses":[{"identity":"a","status":"PENDING","evidence":"STORED"`}},
		{"GET", one + "?report=COUNTS", "", 200, []string{`"statuses":[],"next_page_token":""}`}},
		{"GET", one + "?report=SOME", "", 400, []string{`report`}},
		{"GET", one + "?page_size=1", "", 200, []string{`"next_page_token":"YQ"`}},
		{"GET", one + "?page_token=YQ", "", 200, []string{`"statuses":[{"identity":"b"`}},
		{"GET", one + "?page_token=%25", "", 400, []string{`"field":"page_token"`}},
		{"GET", base + "/multicasts/nope", "", 404, []string{`"code":"NOT_FOUND"`}},
		{"POST", one + ":cancel", `{"multicast_id":"x"}`, 400, []string{`thepathsays`}},
		{"POST", one + ":cancel", "", 200, []string{`"withdrawn_count":2`, `"state":"WITHDRAWN"`, `"failed_count":2`}},
		{"POST", one + ":cancel", "{}", 200, []string{`"withdrawn_count":0`}},
		{"POST", base + "/multicasts/nope:cancel", "", 404, []string{`"code":"NOT_FOUND"`}},
		{"DELETE", one, "", 405, []string{`thisroutetakesGET`}},
	} {
		resp, body := b.do(row.method, row.path, row.body)
		flat := strings.NewReplacer(" ", "", "\n", "").Replace(body)
		if resp.StatusCode != row.code {
			t.Errorf("%s %s: %d %s", row.method, row.path, resp.StatusCode, flat)
		}
		for _, part := range row.has {
			if !strings.Contains(flat, part) {
				t.Errorf("%s %s lacks %s: %s", row.method, row.path, part, flat)
			}
		}
	}
}

// An ack by POST may carry a reply.
func TestRepliesByPost(t *testing.T) {
	b := serve(t, Config{})
	b.register("a")
	s := b.events(base + "/identities/a:subscribe?ack=manual")
	stream := strings.Split(s.next().data, `"`)[7]
	result := make(chan *patternpb.MulticastResponse, 1)
	go func() {
		got, err := b.rpc.Multicast(b.ctx, &patternpb.MulticastRequest{Delivery: patternpb.Delivery_EXACTLY_ONCE})
		if err != nil {
			t.Error(err)
		}
		result <- got
	}()
	e := s.next()
	if !strings.Contains(e.data, `"once":true`) {
		t.Errorf("got %v", e)
	}
	post := func(reply string) (answer, string) {
		return b.do("POST", base+"/messages:ack", fmt.Sprintf(`{"stream":%q,"acks":[{"identity":"a","message_id":%q%s}]}`, stream, e.id, reply))
	}
	for reply, want := range map[string]string{
		`,"reply_code":-1`:         `acks.reply_code cannot be a number -1`,
		`,"reply_code":"x"`:        `acks.reply_code cannot be a string`,
		`,"reply_code":4294967296`: `acks.reply_code cannot be a number 4294967296`,
		`,"reply_body":5`:          `acks.reply_body cannot be a number`,
		`,"reply_body":"Fire!"`:    `"field": "acks/0/reply_body"`,
		`,"reply_text":"x"`:        `reply_text`,
		`,"reply_body":"` + base64.StdEncoding.EncodeToString(make([]byte, 4097)) + `"`: `at most 4096 are allowed`,
	} {
		if resp, got := post(reply); resp.StatusCode != http.StatusBadRequest || !strings.Contains(got, want) {
			t.Errorf("%.40s: %d %s", reply, resp.StatusCode, got)
		}
	}
	if resp, got := post(`,"reply_code":3,"reply_body":"_-8"`); resp.StatusCode != http.StatusOK {
		t.Fatalf("%d %s", resp.StatusCode, got)
	}
	if got := <-result; got.GetReplyCounts()[3] != 1 || string(got.GetStatuses()[0].GetReplyBody()) != "\xff\xef" {
		t.Errorf("got %v", got)
	}
}
