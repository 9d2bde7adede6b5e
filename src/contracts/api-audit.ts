import { z } from 'zod'
import { nextCursorSchema, pageQuerySchema, periodQuery } from './api-page.ts'
import { AUDIT_ACTIONS } from './names.ts'
import { storableText } from './storable-text.ts'

export const auditQuerySchema = pageQuerySchema.extend({
  projectId: z.uuid().optional(),
  keyId: z.uuid().optional().describe('Who.'),
  action: z.enum(AUDIT_ACTIONS).optional(),
  target: storableText.min(1).max(200).optional(),
  ...periodQuery,
})

export const auditEventSchema = z
  .object({
    id: z.uuid(),
    at: z.iso.datetime(),
    projectId: z.uuid().nullable(),
    keyId: z.uuid().nullable().describe('Who. `null`: the installation itself, as when a key expires.'),
    action: z.enum(AUDIT_ACTIONS),
    target: z.string().nullable().describe('What was changed: mostly an id.'),
    before: z.unknown().describe('As it was; `null` for what is new.'),
    after: z.unknown().describe('As it is now, without secrets; `null` when it is gone.'),
  })
  .meta({ id: 'AuditEvent' })

export const auditListSchema = z.object({ events: z.array(auditEventSchema), nextCursor: nextCursorSchema })

export type AuditEventView = z.infer<typeof auditEventSchema>
