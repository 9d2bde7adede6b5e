import { z } from 'zod'

const hex32 = z.string().regex(/^[0-9a-f]{64}$/)

/**
 * One line of the file that is kept outside the database: the head of the chain as it was when it was made. The hash
 * covers the block's rows and, through the previous hash, every block before it; the signature covers the hash.
 */
export const anchorLineSchema = z.object({
  height: z.int().min(1),
  hash: hex32,
  /** How many movements the block has, and the place of the last one. */
  count: z.int().min(1),
  last: z.object({ xid: z.string(), seq: z.string() }),
  sealedAt: z.string(),
  /** Null when the sealer had no key. */
  keyId: z.string().nullable(),
  signature: z.string().nullable(),
})

export type AnchorLine = z.infer<typeof anchorLineSchema>

/** What a sealer without an anchor keeps beside its key: the newest head that it trusts. */
export const sealMarkSchema = anchorLineSchema.pick({ height: true, hash: true, keyId: true })
