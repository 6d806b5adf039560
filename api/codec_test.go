package api

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	commonpb "go.temporal.io/api/common/v1"
	"go.temporal.io/sdk/converter"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/earmark-dev/earmark"
)

// withCodec compresses payloads: which codec it is makes no difference here.
func withCodec(o *Options) {
	o.Codec = converter.NewZlibCodec(converter.ZlibCodecOptions{AlwaysEncode: true})
}

func TestDecodePayloads(t *testing.T) {
	t.Parallel()
	plain, err := converter.GetDefaultDataConverter().ToPayload("acme")
	require.NoError(t, err)
	encoded, err := converter.NewZlibCodec(converter.ZlibCodecOptions{AlwaysEncode: true}).Encode([]*commonpb.Payload{plain})
	require.NoError(t, err)
	body, err := protojson.Marshal(&commonpb.Payloads{Payloads: append(encoded, plain)})
	require.NoError(t, err)

	b := setup(t, &fake{}, withCodec)
	const page = "http://127.0.0.1:8233"
	require.Equal(t, page, originOf(uiURL))
	x := b.do("POST", codecPath, string(body), "Origin", page, "X-Namespace", "default").status(http.StatusOK)
	require.Equal(t, page, x.resp.Header.Get("Access-Control-Allow-Origin"))
	var decoded commonpb.Payloads
	require.NoError(t, protojson.Unmarshal(x.body, &decoded))
	require.Len(t, decoded.GetPayloads(), 2)
	for _, payload := range decoded.GetPayloads() {
		require.True(t, payload.Equal(plain), payload)
	}

	asked := b.do("OPTIONS", codecPath, "", "Origin", page, "Access-Control-Request-Method", "POST").status(http.StatusNoContent)
	require.Equal(t, page, asked.resp.Header.Get("Access-Control-Allow-Origin"))
	require.Equal(t, "POST", asked.resp.Header.Get("Access-Control-Allow-Methods"))

	// Only that page, and nothing else from it.
	const stranger = "http://stranger.example"
	require.Empty(t, b.do("OPTIONS", codecPath, "", "Origin", stranger).resp.Header.Get("Access-Control-Allow-Origin"))
	b.do("POST", codecPath, string(body), "Origin", stranger).status(http.StatusForbidden)
	b.do("POST", "/v1/budgets", `{"scope":"acme","unit":"tokens","limit":1}`, "Origin", page).status(http.StatusForbidden)
	require.Empty(t, b.do("GET", "/v1/budgets", "", "Origin", page).resp.Header.Get("Access-Control-Allow-Origin"))

	for _, wrong := range []string{"x", `{"payloads":1}`, `{"other":[]}`} {
		b.send("POST", codecPath, wrong).status(http.StatusBadRequest)
	}
	broken, err := json.Marshal(map[string]any{"payloads": []any{map[string]any{"metadata": map[string]string{"encoding": "YmluYXJ5L3psaWI="}, "data": "AAAA"}}})
	require.NoError(t, err)
	b.do("POST", codecPath, string(broken)).status(http.StatusBadRequest)
	b.send("POST", codecPath, `{"payloads":[`+strings.Repeat(" ", maxCodecBytes)+`]}`).status(http.StatusRequestEntityTooLarge)

	f := &fake{}
	bound := f.addKey(otherTenant, earmark.RoleAdmin, boundTo("acme"))
	setup(t, f, withCodec, withKeys).do("POST", codecPath, string(body), with(bound)...).status(http.StatusForbidden)

	none := setup(t, &fake{})
	none.do("POST", codecPath, string(body)).status(http.StatusNotFound)
	none.do("OPTIONS", codecPath, "").status(http.StatusNotFound)
}
