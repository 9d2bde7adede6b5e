/** What the gateway takes on, judged before the database is asked anything. */
export interface GatewayLimits {
  /** Largest body of a request. */
  readonly bodyBytes: number
  /** Most requests in flight in one process, streams included. */
  readonly requests: number
  /** The same of one API key. */
  readonly requestsOfKey: number
  /** Keys that open nothing, from one address in a minute; after that, only keys that were good here before are looked up. */
  readonly failuresOfAddress: number
}

/** Prompts hold documents and images; an idle stream costs some 100 KB. */
export const USUAL_GATEWAY_LIMITS: GatewayLimits = Object.freeze({
  bodyBytes: 20 * 1024 * 1024,
  requests: 8_000,
  requestsOfKey: 4_000,
  failuresOfAddress: 60,
})
