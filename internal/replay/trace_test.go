package replay

import (
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const header = "TIMESTAMP,ContextTokens,GeneratedTokens\n"

func readAll(text string) (rows []Row, err error) {
	reader, err := NewReader(strings.NewReader(text))
	if err != nil {
		return nil, err
	}
	for {
		row, err := reader.Next()
		if errors.Is(err, io.EOF) {
			return rows, nil
		}
		if err != nil {
			return rows, err
		}
		rows = append(rows, row)
	}
}

func TestReaderTakesWhatTracesLookLike(t *testing.T) {
	t.Parallel()
	at := time.Date(2023, time.November, 16, 18, 17, 3, 979960000, time.UTC)
	want := []Row{
		{Number: 1, At: at, ContextTokens: 4808, GeneratedTokens: 10},
		{Number: 2, At: at.Add(time.Second), ContextTokens: 0, GeneratedTokens: 0},
	}
	for name, text := range map[string]string{
		"Azure 2023":          header + "2023-11-16 18:17:03.9799600,4808,10\n2023-11-16 18:17:04.9799600,0,0\n",
		"Azure 2024":          header + "2023-11-16 18:17:03.979960+00:00,4808,10\n2023-11-16 18:17:04.979960+00:00,0,0\n",
		"RFC 3339":            header + "2023-11-16T18:17:03.97996Z,4808,10\n2023-11-16T19:17:04.97996+01:00,0,0\n",
		"no newline at end":   header + "2023-11-16 18:17:03.9799600,4808,10\n2023-11-16 18:17:04.9799600,0,0",
		"CRLF":                strings.ReplaceAll(header+"2023-11-16 18:17:03.9799600,4808,10\n2023-11-16 18:17:04.9799600,0,0\n", "\n", "\r\n"),
		"quoted":              "\"TIMESTAMP\",\"ContextTokens\",\"GeneratedTokens\"\n\"2023-11-16 18:17:03.9799600\",\"4808\",\"10\"\n\"2023-11-16 18:17:04.9799600\",0,0\n",
		"byte order mark":     "\ufeff" + header + "2023-11-16 18:17:03.9799600,4808,10\n2023-11-16 18:17:04.9799600,0,0\n",
		"quoted and mark":     "\ufeff\"TIMESTAMP\",ContextTokens,GeneratedTokens\n2023-11-16 18:17:03.9799600,4808,10\n2023-11-16 18:17:04.9799600,0,0\n",
		"blank lines":         "\n" + header + "\n2023-11-16 18:17:03.9799600,4808,10\n  \n2023-11-16 18:17:04.9799600,0,0\n\n",
		"spaces":              "timestamp , contexttokens, GENERATEDTOKENS\n2023-11-16 18:17:03.9799600, 4808 ,10 \n2023-11-16 18:17:04.9799600,0,0\n",
		"other columns":       "id,GeneratedTokens,note,TIMESTAMP,ContextTokens\n1,10,\"a, b\",2023-11-16 18:17:03.9799600,4808\n2,0,,2023-11-16 18:17:04.9799600,0\n",
		"quotes are an extra": "TIMESTAMP,ContextTokens,GeneratedTokens,note\n2023-11-16 18:17:03.9799600,4808,10,\"say \"\"hi\"\"\"\n2023-11-16 18:17:04.9799600,0,0,\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rows, err := readAll(text)
			require.NoError(t, err)
			require.Len(t, rows, len(want))
			for i, row := range rows {
				require.True(t, row.At.Equal(want[i].At), "%s is not %s", row.At, want[i].At)
				row.At = want[i].At
				require.Equal(t, want[i], row)
			}
		})
	}
}

func TestReaderNamesLineAndColumnOfNonsense(t *testing.T) {
	t.Parallel()
	const good = "2023-11-16 18:17:03.9799600,4808,10\n"
	for name, test := range map[string]struct{ text, want string }{
		"empty":           {"", "the trace is empty"},
		"blank":           {"\n\n", "the trace is empty"},
		"no header":       {good, "line 1: the header lacks the column"},
		"lacks a column":  {"TIMESTAMP,ContextTokens\n", "line 1: the header lacks the column GeneratedTokens; it has TIMESTAMP,ContextTokens"},
		"column twice":    {"TIMESTAMP,ContextTokens,GeneratedTokens,contexttokens\n", "line 1: the header names the column ContextTokens twice"},
		"bad time":        {header + "yesterday,1,2\n", `line 2, column TIMESTAMP: "yesterday" is not a time`},
		"no such day":     {header + "2023-02-30 00:00:00,1,2\n", "line 2, column TIMESTAMP"},
		"words":           {header + good + "2023-11-16 18:17:04,many,2\n", `line 3, column ContextTokens: "many" is not a whole number`},
		"fraction":        {header + "2023-11-16 18:17:04,1,2.5\n", `line 2, column GeneratedTokens: "2.5"`},
		"negative":        {header + "2023-11-16 18:17:04,-1,2\n", `line 2, column ContextTokens: "-1"`},
		"too many tokens": {header + "2023-11-16 18:17:04,1,10000001\n", "line 2, column GeneratedTokens"},
		"overflow":        {header + "2023-11-16 18:17:04,99999999999999999999,1\n", "line 2, column ContextTokens"},
		"too few":         {header + good + "\n2023-11-16 18:17:04,1\n", "line 4: has 2 columns, and the header has 3"},
		"too many":        {header + "2023-11-16 18:17:04,1,2,3\n", "line 2: has 4 columns, and the header has 3"},
		"backwards":       {header + good + "2023-11-16 18:17:02,1,2\n", "line 3, column TIMESTAMP"},
		"open quote":      {header + "\"2023-11-16 18:17:04,1,2\n" + good, "line 2: "},
		"a long line":     {header + good + strings.Repeat("9", maxLineBytes) + "\n", "line 3: is over 65536 bytes long"},
		"binary":          {"\x00\xff\xfe", "line 1: the header lacks the column"},
		"long nonsense":   {header + strings.Repeat("ä", 100) + ",1,2\n", `…" is not a time`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := readAll(test.text)
			require.ErrorContains(t, err, test.want)
			require.Less(t, len(err.Error()), 250, "an error quotes little of a file")
		})
	}
}

func TestMeasure(t *testing.T) {
	t.Parallel()
	const text = header + "2023-11-16 18:17:03,100,5\n2023-11-16 18:17:05,200,50\n2023-11-16 18:17:13,300,1\n"

	extent, err := Measure(strings.NewReader(text), 10, 0)
	require.NoError(t, err)
	require.Equal(t, int64(3), extent.Rows)
	require.Equal(t, 10*time.Second, extent.Last.Sub(extent.First))
	require.Equal(t, int64(100+10+200+50+300+10), extent.RoomTokens, "a row needs what it reserves, or what it uses where that is more")

	extent, err = Measure(strings.NewReader(text+"nonsense\n"), 10, 2)
	require.NoError(t, err, "what comes after the last row is not read")
	require.Equal(t, int64(2), extent.Rows)
	require.Equal(t, 2*time.Second, extent.Last.Sub(extent.First))

	_, err = Measure(strings.NewReader(header), 10, 0)
	require.ErrorContains(t, err, "no rows")
}

// endless is a trace without an end, and counts what is read of it.
type endless struct{ read int }

func (e *endless) Read(p []byte) (int, error) {
	const row = "2023-11-16 18:17:03.9799600,4808,10\n"
	for i := range p {
		if e.read < len(header) {
			p[i] = header[e.read]
		} else {
			p[i] = row[(e.read-len(header))%len(row)]
		}
		e.read++
	}
	return len(p), nil
}

func TestReaderStreams(t *testing.T) {
	t.Parallel()
	source := &endless{}
	reader, err := NewReader(source)
	require.NoError(t, err)
	for range 10 {
		_, err := reader.Next()
		require.NoError(t, err)
	}
	require.LessOrEqual(t, source.read, maxLineBytes)
}

func FuzzReader(f *testing.F) {
	f.Add(header + "2023-11-16 18:17:03.9799600,4808,10\r\n")
	f.Add("\ufeff\"TIMESTAMP\",x,ContextTokens,GeneratedTokens\n2023-11-16T18:17:03+01:00,\"a,\"\"b\",1,2\n\n")
	f.Add(header + "\"2023-11-16 18:17:03,1,2\n")
	f.Add(header + "2023-11-16 18:17:03,1,-2")
	f.Fuzz(func(t *testing.T, text string) {
		rows, err := readAll(text)
		if err != nil {
			require.NotEmpty(t, err.Error())
		}
		var last time.Time
		for i, row := range rows {
			require.Equal(t, int64(i+1), row.Number)
			require.False(t, i > 0 && row.At.Before(last), "rows come in order of time")
			require.True(t, row.ContextTokens >= 0 && row.ContextTokens <= MaxRowTokens)
			require.True(t, row.GeneratedTokens >= 0 && row.GeneratedTokens <= MaxRowTokens)
			last = row.At
		}
		extent, measured := Measure(strings.NewReader(text), 1, 0)
		if err == nil && len(rows) > 0 {
			require.NoError(t, measured)
			require.Equal(t, int64(len(rows)), extent.Rows)
		} else {
			require.Error(t, measured)
		}
	})
}
