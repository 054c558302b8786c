import com.fasterxml.jackson.databind.BeanDescription;
import com.fasterxml.jackson.databind.JavaType;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.introspect.AnnotatedMember;
import com.fasterxml.jackson.databind.introspect.BeanPropertyDefinition;
import java.util.ArrayDeque;
import java.util.Deque;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;

/** Prints, as JSON, the fields that Keycloak's Jackson accepts in a realm file, by class, each with its kind. */
public class Representations {
    private static final ObjectMapper MAPPER = new ObjectMapper();
    private static final Map<String, Map<String, String>> FOUND = new TreeMap<>();
    private static final Deque<JavaType> LEFT = new ArrayDeque<>();
    /** Forms from before Keycloak 3, and what has a deserializer of its own: their content is not looked at. */
    private static final Set<String> ANY = Set.of(
            "ApplicationRepresentation", "OAuthClientRepresentation", "ClientTemplateRepresentation",
            "ResourceOwnerRepresentation", "ResourceType");

    public static void main(String[] args) throws Exception {
        LEFT.add(MAPPER.constructType(Class.forName("org.keycloak.representations.idm.RealmRepresentation")));
        while (!LEFT.isEmpty()) {
            JavaType type = LEFT.pop();
            if (FOUND.containsKey(type.getRawClass().getSimpleName())) continue;
            Map<String, String> fields = new TreeMap<>();
            FOUND.put(type.getRawClass().getSimpleName(), fields);
            BeanDescription bean = MAPPER.getDeserializationConfig().introspect(type);
            for (BeanPropertyDefinition property : bean.findProperties()) fields.put(property.getName(), kind(property));
        }
        System.out.println(MAPPER.writeValueAsString(FOUND));
    }

    private static String kind(BeanPropertyDefinition property) {
        AnnotatedMember mutator = property.getNonConstructorMutator();
        Object own = mutator == null ? null
                : MAPPER.getDeserializationConfig().getAnnotationIntrospector().findDeserializer(mutator);
        if (own != null) return ((Class<?>) own).getSimpleName().equals("StringListMapDeserializer") ? "{texts}" : "any";
        if (property.hasSetter()) return kind(property.getSetter().getParameterType(0));
        return kind(mutator == null ? property.getGetter().getType() : mutator.getType()); // a list is filled by its getter
    }

    private static String kind(JavaType type) {
        if (type.isMapLikeType()) return "{" + kind(type.getContentType()) + "}";
        if (type.isCollectionLikeType() || type.isArrayType()) return "[" + kind(type.getContentType()) + "]";
        Class<?> raw = type.getRawClass();
        if (raw.isEnum() || raw == String.class) return "text";
        if (raw == Boolean.class || raw == boolean.class) return "boolean";
        if (raw.isPrimitive() || Number.class.isAssignableFrom(raw)) return "number";
        if (!raw.getName().startsWith("org.keycloak.representations") || ANY.contains(raw.getSimpleName())) return "any";
        LEFT.add(type);
        return raw.getSimpleName();
    }
}
