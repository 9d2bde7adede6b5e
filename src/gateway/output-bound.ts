import type { Tight } from '#contracts/call-choices.ts'

/** More than any model writes: a request that names no bound gets as much as its route gives. */
export const UNBOUNDED_TOKENS = 10_000_000

/**
 * Of a request that names no bound nobody wants as much as its route gives: its output is fitted into a quarter of the free
 * money, and is asked for with so many tokens at least. One that names a bound gets it, or is refused.
 */
export const FITTED: Tight = Object.freeze({ policy: 'clamp', floorTokens: 256, parallelism: 4 })
