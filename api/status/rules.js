// What the list of stuck reservations goes by: its order and its commands.

// Causes come before what they cause, and what is broken before what waits for a decision.
export const order = ["paused", "task_failing", "settlement_failing", "orphan", "expiry_missed", "review"];

const since = ({ stuck }) => (stuck.since ? Date.parse(stuck.since) : Infinity);

// inOrder never depends on when the page was loaded: rows stay where they are under the hand, and what is new in a
// reason comes last.
export const inOrder = (a, b) =>
  order.indexOf(a.stuck.reason) - order.indexOf(b.stuck.reason) || Math.sign(since(a) - since(b)) || (a.id < b.id ? -1 : 1);

// why and used stand for what only a person knows. A shell refuses a line with them as they are, so that a line which is
// pasted unchanged does nothing.
const why = " --reason <why>";
const used = "<used>";

// withServer names the server in front of what is to be filled in.
const withServer = (line, urlFlag) => !line.startsWith("earmark ") ? line : (line.includes(" --reason ") ? line.replace(" --reason ", `${urlFlag} --reason `) : line + urlFlag);

// bulk is the command for all that are stuck for a reason, where they are several, with its label. Paused workflows need
// to run again, which Temporal's command line does for one at a time. Else it shows them, and gives them back with --yes.
export function bulk(reason, all, urlFlag) {
  if (reason === "paused") {
    const unpause = `for id in $(earmark stuck --reason paused --json${urlFlag} | grep -o '"workflow_id": *"[^"]*"' | cut -d '"' -f 4); do temporal workflow unpause --workflow-id "$id"${why}; done`;
    return all.length < 2 ? [] : [["Let all their workflows run, with Temporal's command line", unpause]];
  }
  const open = all.filter((r) => !r.lost && (r.state === "held" || r.state === "review"));
  if (open.length < 2) return [];
  return [["Give all back, with --yes", withServer(`earmark drain --scope ${common(open.flatMap((r) => r.scopes)) || "<scope>"} --stuck ${reason}${why}`, urlFlag)]];
}

// common is the longest scope that covers all of them, "" where there is none.
function common(scopes) {
  const [first, ...rest] = scopes.map((scope) => scope.split("/"));
  const ends = first.findIndex((segment, i) => rest.some((other) => other[i] !== segment));
  return first.slice(0, ends < 0 ? first.length : ends).join("/");
}

// commands are what the server says helps, and where that gives everything back, the other way.
export function commands(r, urlFlag) {
  const lines = [[labels.find(([verb]) => r.stuck.remedy.startsWith(verb + " "))?.[1] ?? "What helps", r.stuck.remedy]];
  if (r.stuck.remedy.startsWith("earmark release ")) {
    const usage = Object.keys(r.amounts).sort().map((unit) => `${unit}=${used}`).join(" ");
    lines.push(["Or charge what was used", `earmark commit ${r.id} ${usage}${why}`]);
  }
  return lines.map(([label, line]) => [label, withServer(line, urlFlag)]);
}

const labels = [
  ["earmark release", "Give it back"], ["earmark commit", "Charge what was used"], ["earmark adopt", "Give it a workflow"],
  ["earmark show", "It is settled; look at it"], ["earmark budget create", "It has no budget; make one"],
  ["temporal workflow unpause", "Let its workflow run, with Temporal's command line"],
];
