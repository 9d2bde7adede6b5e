/** Longest wait a provider's word is taken for, in milliseconds. */
const MAX_MS = 3_600_000

/**
 * What a provider asks to wait, in milliseconds: `retry-after-ms`, then `retry-after` in seconds or as an HTTP date
 * (RFC 9110, 10.2.3). Nonsense and negative values count as not given.
 */
export function retryAfterMs(headers: { get(name: string): string | null } | undefined, nowMs: number): number | null {
  const exact = headers?.get('retry-after-ms')
  if (exact != null && /^\d+(\.\d+)?$/.test(exact.trim())) return Math.min(MAX_MS, Math.ceil(Number(exact)))
  const text = headers?.get('retry-after')?.trim()
  if (!text) return null
  if (/^\d+(\.\d+)?$/.test(text)) return Math.min(MAX_MS, Math.ceil(Number(text) * 1000))
  const dateMs = Date.parse(text)
  return Number.isNaN(dateMs) || dateMs < nowMs ? null : Math.min(MAX_MS, dateMs - nowMs)
}
