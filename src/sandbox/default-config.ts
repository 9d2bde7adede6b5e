/**
 * What the sandbox serves when it is given no configuration, in the same shape as `SANDBOX_CONFIG`. Prices are USD per
 * 1,000,000 tokens; the busy model refuses every request, so that a retry and a fallback can be seen.
 */
export const defaultConfig = {
  models: {
    'sandbox-economy': { prices: { input: '0.10', output: '0.40' } },
    'sandbox-busy': {
      prices: { input: '0.15', output: '0.60' },
      faults: [{ rateLimit: { everyNth: 1 }, retryAfterMs: 50 }],
    },
    'sandbox-steady': { prices: { input: '0.40', output: '1.60' } },
    'sandbox-small': { prices: { input: '0.05', output: '0.20' }, contextTokens: 16_000, maxOutputTokens: 1024 },
    'sandbox-thinker': {
      prices: { input: '1.00', cachedInput: '0.10', cacheWrite: '1.25', output: '4.00', reasoning: '3.00' },
      reasoningTokens: 48,
      cache: true,
    },
    'sandbox-echo': { prices: { input: '0.10', output: '0.40' }, answers: 'echo' },
    'sandbox-embed': { prices: { input: '0.02', output: '0.00' }, kind: 'embedding', contextTokens: 8192 },
  },
} as const
