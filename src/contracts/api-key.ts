import { z } from 'zod'
import { nextCursorSchema, pageQuerySchema, versionSchema } from './api-page.ts'
import { constraintsSchema } from './constraints.ts'
import { momentSchema } from './instant.ts'
import { KEY_SCOPES, OPERATOR_SCOPES, USUAL_OPERATOR_SCOPES } from './names.ts'
import { storableText } from './storable-text.ts'

const name = storableText.trim().min(1).max(100)
const moment = z.iso.datetime()

/** Most addresses of one key. */
const MAX_ADDRESSES = 100
const address = z.union([z.ipv4(), z.ipv6(), z.cidrv4(), z.cidrv6()])

const bounds = {
  name,
  expiresAt: momentSchema.optional().describe('It opens nothing from then on. Left out: never.'),
  allowedIps: z
    .array(address)
    .min(1)
    .max(MAX_ADDRESSES)
    .optional()
    .describe('Addresses or networks (`10.0.0.0/8`) it may be used from. Left out: any.'),
}

function eachOnce(scopes: readonly string[]): boolean {
  return new Set(scopes).size === scopes.length
}

export const keyRequestSchema = z.strictObject({
  ...bounds,
  scopes: z
    .array(z.enum(KEY_SCOPES))
    .min(1)
    .refine(eachOnce, 'names one twice')
    .default([...KEY_SCOPES])
    .describe('`calls`: the gateway. `runs`: starting and acting on runs and what they need. `read`: reading.'),
  constraints: constraintsSchema.optional().describe('For all its calls, those of its runs included; for good.'),
})

export const operatorKeyRequestSchema = z.strictObject({
  ...bounds,
  scopes: z
    .array(z.enum(OPERATOR_SCOPES))
    .min(1)
    .refine(eachOnce, 'names one twice')
    .default([...USUAL_OPERATOR_SCOPES])
    .describe(
      '`admin`: every change. `read`: reading. `installation`: making organisations; only with a key that has it.',
    ),
})

export const keyChangeSchema = z.strictObject({ name })

/** Thirty days. */
const MAX_OVERLAP_SECONDS = 2_592_000

export const rotationRequestSchema = z.strictObject({
  overlapSeconds: z
    .int()
    .min(0)
    .max(MAX_OVERLAP_SECONDS)
    .describe('How long the old secret still works. Zero: it is revoked at once.'),
  expiresAt: bounds.expiresAt.describe('Of the new key. Left out: that of the old one.'),
})

export const keySchema = z
  .object({
    id: z.uuid(),
    projectId: z.uuid().nullable().describe("`null`: an operator's key of the organisation."),
    name: z.string(),
    hint: z.string().describe('The beginning of the secret, to tell keys apart.'),
    scopes: z.array(z.enum([...KEY_SCOPES, ...OPERATOR_SCOPES])),
    constraints: constraintsSchema.nullable(),
    allowedIps: z.array(z.string()).nullable(),
    createdAt: moment,
    expiresAt: moment.nullable(),
    revokedAt: moment.nullable(),
    lastUsedAt: moment.nullable().describe('To the minute.'),
    rotatedFrom: z
      .uuid()
      .nullable()
      .describe('The key it took over from: limits on that one bind this one too, in the same windows.'),
    runId: z.uuid().nullable().describe('The external run that it works for, and for nothing else.'),
    version: versionSchema,
  })
  .meta({ id: 'Key' })

export const keyQuerySchema = pageQuerySchema.extend({
  state: z.enum(['in_force', 'ended']).optional().describe('`ended`: revoked or expired.'),
})

export const keyListSchema = z.object({ keys: z.array(keySchema), nextCursor: nextCursorSchema })

/** The secret is answered once: only its SHA-256 is kept, so a repeated request is answered without it. */
export const newKeySchema = keySchema
  .extend({ secret: z.string().optional(), remedy: z.string().optional() })
  .meta({ id: 'NewKey' })

export type KeyView = z.infer<typeof keySchema>
