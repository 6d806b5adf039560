package api

import (
	"io"
	"net/http"
	"net/url"

	"github.com/gin-gonic/gin"
	commonpb "go.temporal.io/api/common/v1"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/earmark-dev/earmark"
)

const (
	// codecPath is what a page of Temporal UI calls with the payloads that it shows.
	codecPath = "/temporal/codec/decode"
	// maxCodecBytes bounds a call: a page of a history comes in one.
	maxCodecBytes = 8 << 20
)

// decodePayloads decrypts payloads for Temporal UI and Temporal's command line.
func (s *server) decodePayloads(c *gin.Context) error {
	if s.codec == nil {
		return noRoute(c)
	}
	s.allowUI(c)
	// A payload names neither its tenant nor its scopes.
	if err := callerOf(c).needsNoBounds(); err != nil {
		return err
	}
	body, err := io.ReadAll(http.MaxBytesReader(c.Writer, c.Request.Body, maxCodecBytes))
	if err != nil {
		return earmark.Errorf(earmark.CodePayloadTooLarge, "the body is over %d bytes, or broke off", maxCodecBytes)
	}
	var payloads commonpb.Payloads
	if err := protojson.Unmarshal(body, &payloads); err != nil {
		return earmark.Invalidf("", "the body is no JSON object with payloads of Temporal")
	}
	plain, err := s.codec.Decode(payloads.GetPayloads())
	if err != nil {
		return earmark.Invalidf("payloads", "%w", err)
	}
	text, err := protojson.Marshal(&commonpb.Payloads{Payloads: plain})
	if err != nil {
		return err
	}
	c.Data(http.StatusOK, "application/json", text)
	return nil
}

// allowDecoding answers the question of a browser whether a page of Temporal UI may call decodePayloads.
func (s *server) allowDecoding(c *gin.Context) error {
	if s.codec == nil {
		return noRoute(c)
	}
	s.allowUI(c)
	c.Status(http.StatusNoContent)
	return nil
}

// allowUI lets a browser hand the answer to the pages of Temporal UI, and to no others.
func (s *server) allowUI(c *gin.Context) {
	c.Header("Vary", "Origin")
	if origin := c.GetHeader("Origin"); origin == "" || origin != s.uiOrigin {
		return
	}
	c.Header("Access-Control-Allow-Origin", s.uiOrigin)
	c.Header("Access-Control-Allow-Credentials", "true")
	c.Header("Access-Control-Allow-Methods", http.MethodPost)
	c.Header("Access-Control-Allow-Headers", "Authorization, Content-Type, X-Namespace")
}

// originOf is the origin of the pages at an address; empty for none.
func originOf(address string) string {
	parsed, err := url.Parse(address)
	if err != nil || parsed.Host == "" {
		return ""
	}
	return parsed.Scheme + "://" + parsed.Host
}
