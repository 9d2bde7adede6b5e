export type ParsedObject = { readonly ok: true; readonly value: unknown } | { readonly ok: false }

/** Models wrap JSON in a Markdown fence even when told not to. */
const FENCE = /^```(?:json)?\s*\n([\s\S]*?)\n?\s*```$/i

/** Reads the JSON of an answer, with or without a fence around it. */
export function parseObject(text: string): ParsedObject {
  const trimmed = text.trim()
  const inner = FENCE.exec(trimmed)?.[1] ?? trimmed
  try {
    const value: unknown = JSON.parse(inner)
    return { ok: true, value }
  } catch {
    return { ok: false }
  }
}
