/** A number of a JSON text as it was written there. */
export class NumberText {
  readonly text: string

  constructor(text: string) {
    this.text = text
  }
}

/** Parses JSON and keeps numbers as they were written: a float would change some. @throws SyntaxError when it is none */
export function parseWithSources(text: string): unknown {
  const keepNumber = (_key: string, value: unknown, context?: { readonly source?: string }): unknown =>
    typeof value === 'number' ? new NumberText(context?.source ?? String(value)) : value
  const parsed: unknown = JSON.parse(text, keepNumber)
  return parsed
}

/** The members of a JSON object; undefined for everything else. */
export function membersOf(value: unknown): ReadonlyMap<string, unknown> | undefined {
  if (typeof value !== 'object' || value === null || Array.isArray(value) || value instanceof NumberText)
    return undefined
  return new Map(Object.entries(value))
}
