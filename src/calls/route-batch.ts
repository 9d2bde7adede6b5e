/** What was spent between two turns, and where it counts. */
export interface Batch {
  requests: number
  tokens: number
  /** `open`: not told yet. `sent`: being told. `void`: it counts as used, whatever becomes of it. */
  state: 'open' | 'sent' | 'told' | 'void'
  slot: number
  /** What came back while it was being told. */
  backRequests: number
  backTokens: number
}

export function openBatch(): Batch {
  return { requests: 0, tokens: 0, state: 'open', slot: 0, backRequests: 0, backTokens: 0 }
}
