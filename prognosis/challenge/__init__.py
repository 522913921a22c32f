"""One patient as the HECKTOR challenges' platform hands it over: images and an EHR in, a mask and predictions out, without network."""
