const plurals = ["calls", "characters", "images", "messages", "minutes", "pages", "requests", "seconds", "tokens"];

/** Amounts for people, such as "1 request + 1,200 tokens". */
export function formatAmounts(amounts: Record<string, number>): string {
  return Object.keys(amounts)
    .sort()
    .map((unit) => formatQuantity(amounts[unit] ?? 0, unit))
    .join(" + ");
}

function formatQuantity(n: number, unit: string): string {
  const singular = n === 1 && plurals.includes(unit.slice(unit.lastIndexOf("_") + 1)) ? unit.slice(0, -1) : unit;
  return `${n.toLocaleString("en-US")} ${singular}`;
}
