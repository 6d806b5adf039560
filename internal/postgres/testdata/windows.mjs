// Computes windows from what Intl says of time zones, in a way of its own: it lists
// the changes of clocks, then all bounds in order of time.
//
// Input: {from, to, zones: {name: [instant, …]}}; output: {node, tzdata, zones: {name:
// {changes: [[instant, offset], …], windows: {period: [[start, end], …]}}}}. All times
// are seconds since 1970, offsets seconds ahead of UTC. `changes` are those in [from, to).
import { readFileSync } from 'node:fs';

const day = 86400, hour = 3600, week = 7 * day;
const scanStep = 4 * day; // shorter than any time between two changes of clocks
const margin = 740 * day; // the years before and after

// How far clocks are ahead of UTC, from words such as "1/1/2026, GMT+05:30".
const clock = (timeZone) => {
  const format = new Intl.DateTimeFormat('en-US', { timeZone, timeZoneName: 'longOffset' });
  return (at) => {
    const words = format.format(at * 1000);
    const offset = words.slice(words.indexOf('GMT') + 3);
    if (offset === '') return 0;
    const [hours, minutes, seconds = 0] = offset.slice(1).split(':').map(Number);
    return (offset[0] === '-' ? -1 : 1) * (hours * hour + minutes * 60 + seconds);
  };
};

// Spans of one offset: {start, end, offset}, in order and without gaps.
const spansOf = (timeZone, from, to) => {
  const offsetAt = clock(timeZone);
  const spans = [{ start: from, offset: offsetAt(from) }];
  for (let at = from; at < to; at += scanStep) {
    const { offset } = spans.at(-1);
    const next = offsetAt(at + scanStep);
    if (next === offset) continue;
    let [before, after] = [at, at + scanStep];
    while (after - before > 1) {
      const middle = Math.floor((before + after) / 2);
      if (offsetAt(middle) === offset) before = middle;
      else after = middle;
    }
    spans.push({ start: after, offset: offsetAt(after) });
    at = after - scanStep;
  }
  spans.forEach((span, i) => { span.end = spans[i + 1]?.start ?? to; });
  return spans;
};

// What clocks read at the start of the period after the one that holds `reading`.
const following = {
  day: (reading) => (Math.floor(reading / day) + 1) * day,
  week: (reading) => { const monday = 4 * day; return (Math.floor((reading - monday) / week) + 1) * week + monday; },
  month: (reading) => { const date = new Date(reading * 1000); return Date.UTC(date.getUTCFullYear(), date.getUTCMonth() + 1, 1) / 1000; },
  year: (reading) => Date.UTC(new Date(reading * 1000).getUTCFullYear() + 1, 0, 1) / 1000,
};

// Every instant at which a date is read for the first time.
const boundsOf = (spans, period) => {
  const bounds = [];
  let next = following[period](spans[0].start + spans[0].offset);
  for (const { start, end, offset } of spans) {
    while (next < end + offset) {
      const bound = Math.max(start, next - offset);
      if (bounds.at(-1) !== bound) bounds.push(bound);
      next = following[period](next);
    }
  }
  return bounds;
};

const around = (bounds, at) => {
  let [low, high] = [0, bounds.length];
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (bounds[middle] <= at) low = middle;
    else high = middle;
  }
  return [bounds[low], bounds[high]];
};

// The hour around an instant: full hours and changes by a part of an hour bound it.
const hourAround = (spans, at) => {
  const bounds = [];
  let first = spans.findLastIndex((span) => span.start <= at - hour);
  for (let i = Math.max(first, 0); i < spans.length && spans[i].start <= at + hour; i++) {
    const { start, end, offset } = spans[i];
    if (i > 0 && (offset - spans[i - 1].offset) % hour !== 0) bounds.push(start);
    const full = Math.ceil((Math.max(start, at - hour) + offset) / hour) * hour - offset;
    for (let bound = full; bound < Math.min(end, at + 2 * hour); bound += hour) {
      if (bounds.at(-1) !== bound) bounds.push(bound);
    }
  }
  return around(bounds, at);
};

const { from, to, zones } = JSON.parse(readFileSync(0, 'utf8'));
const answer = { node: process.version, tzdata: process.versions.tz, zones: {} };
for (const [name, instants] of Object.entries(zones)) {
  let spans;
  try {
    spans = spansOf(name, from - margin, to + margin);
  } catch (error) {
    if (error instanceof RangeError) continue; // Intl does not know this name
    throw error;
  }
  const windows = { hour: instants.map((at) => hourAround(spans, at)) };
  for (const period of Object.keys(following)) {
    const bounds = boundsOf(spans, period);
    windows[period] = instants.map((at) => around(bounds, at));
  }
  const changes = spans.slice(1).filter(({ start }) => from <= start && start < to).map(({ start, offset }) => [start, offset]);
  answer.zones[name] = { changes, windows };
}
process.stdout.write(JSON.stringify(answer));
